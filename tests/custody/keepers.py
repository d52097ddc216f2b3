"""Nodes with identities that serve, push and keep states of random bytes over the simulated network."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import trio

from iota_p2p.custody.snapshots import SignedState, Snapshots, StateSigner, TakeState
from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryNetwork, open_memory_network
from iota_p2p.network.streams import Streams, open_streams
from iota_p2p.run.spec import RunId
from iota_p2p.training.stage_state import StageState, StateBounds
from iota_p2p.training.state_fetch import StateFetch
from iota_p2p.training.state_transfer import StateServer
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.ids import STATE
from iota_p2p_testnet.simulation import virtual_clock

LINK = LinkModel(latency_s=0.01, jitter_s=0)
RUN = RunId(bytes(range(32)))
STAGE = 2
CHUNK_BYTES = 100  # what tests set `state_manifest.CHUNK_BYTES` to
NUM_BYTES = 1234  # 9 chunks before the weights, 4 of them
BOUNDS = StateBounds(NUM_BYTES, 350)
T = TypeVar("T")


def state_of(seed: int, num_steps: int = 60, epoch: int = 6) -> StageState:
    return StageState(STAGE, epoch, num_steps, Random(f"state {seed}").randbytes(NUM_BYTES))  # noqa: S311


@dataclass
class Node:
    identity: Identity
    streams: Streams
    network: MemoryNetwork

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    @property
    def signer(self) -> StateSigner:
        return StateSigner(self.identity, RUN, lambda _: BOUNDS, virtual_clock)

    async def signed(self, state: StageState) -> SignedState:
        return await self.signer.sign(state)

    async def hold(self, *states: StageState, freezing_s: float = 0.5) -> None:
        """Serve the state of a stage."""
        await self.streams.serve(
            STATE, StateServer(RUN, Snapshots(holding(*states, freezing_s=freezing_s), self.signer)).answer
        )

    def fetching(self, **changes: object) -> StateFetch:
        fields: dict[str, object] = {
            "streams": self.streams,
            "run_id": RUN,
            "stage": STAGE,
            "bounds": BOUNDS,
            "check": good,
            "clock": virtual_clock,
        }
        return StateFetch(**(fields | changes))  # type: ignore[arg-type] # as the dataclass has them


def holding(*states: StageState, freezing_s: float = 0.5) -> TakeState:
    async def take(stage: int) -> StageState | None:
        await trio.sleep(freezing_s)
        return next((state for state in states if state.stage == stage), None)

    return take


async def good(_: StageState) -> None:
    await trio.lowlevel.checkpoint()


async def beside(work: Callable[[], T]) -> T:
    """Do the disk's work at once, as the simulated lane does."""
    await trio.lowlevel.checkpoint()
    return work()


def identity_of(number: int) -> Identity:
    return Identity.from_seed(bytes([number]) * 32)


@asynccontextmanager
async def nodes(count: int, link: LinkModel = LINK) -> AsyncIterator[list[Node]]:
    """Open connected nodes; all are gone when the context ends."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(open_memory_network(1, link))
        identities = [identity_of(number) for number in range(1, count + 1)]
        hosts = [network.host(identity.peer_id) for identity in identities]
        for host in hosts[1:]:
            await host.connect((await hosts[0].addresses())[0])
        yield [
            Node(identity, await stack.enter_async_context(open_streams(host)), network)
            for identity, host in zip(identities, hosts, strict=True)
        ]
