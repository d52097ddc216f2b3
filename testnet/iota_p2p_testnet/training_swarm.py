"""A swarm of whole peers that train: real stages and real text on the simulated network and virtual clock.

Only the host below each peer and the lane's clock are simulated; every number is computed. A piece of work takes the
virtual time that `Costs` says, so that timeouts, queues and epochs pass as they would.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path

import torch
import trio

from iota_p2p.network.link import LinkModel
from iota_p2p.peer import Peer
from iota_p2p.run.corpus import standard_library
from iota_p2p.run.founding import found_run
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import BoundarySpec, EpochSpec, MergeSpec, ModelSpec, OptimizerSpec, RunPlan, RunSpec
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p.training.lane import Priority, SimulatedLane
from iota_p2p.training.state_files import StateFiles
from iota_p2p.training.trainer import Trainer, TrainerConfig, open_trainer
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.rebalance import Stages
from iota_p2p_testnet.simulation import Swarm, open_swarm

# A local network: microbatches take milliseconds there, so that a simulated second holds many steps.
LAN = LinkModel(latency_s=0.002, jitter_s=0.001)
_NUM_DOCUMENTS = 60  # of the standard library: a megabyte, packed in a tenth of a second

Twist = Callable[[Peer, Trainer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Costs:
    """Virtual seconds that a piece of work takes."""

    forward_s: float = 0.010
    backward_s: float = 0.020
    background_s: float = 0.010

    def of(self, priority: Priority) -> float:
        """Return the cost of one piece."""
        return (self.backward_s, self.forward_s, self.background_s)[priority]


@dataclass(slots=True)
class Member:
    """One peer of the swarm that trains."""

    number: int
    peer: Peer
    trainer: Trainer
    scope: trio.CancelScope
    left: trio.Event


class TrainingSwarm:
    """Peers that train one run; open one with `open_training_swarm`.

    Attributes:
        swarm: the peers below.
        spec: their run.
        members: those that are up, by peer id.
        known: all there ever were, likewise.
    """

    def __init__(self, swarm: Swarm, spec: RunSpec, folder: Path, nursery: trio.Nursery) -> None:
        self.swarm = swarm
        self.spec = spec
        self.members: dict[PeerId, Member] = {}
        self.known: dict[PeerId, Member] = {}
        self._folder = folder
        self._nursery = nursery

    async def start(
        self,
        number: int,
        *,
        pinned: Stages | None = None,
        costs: Costs | None = None,
        twist: Twist | None = None,
        epoch: int = 0,
    ) -> Member:
        """Start a peer that joins through all that are up; `twist` may change its parts before it is heard of."""
        peer = await self.swarm.start(number, tuple(self.members))
        config = TrainerConfig(
            store=ShardStore(self._folder / "shards"),
            files=StateFiles(self._folder / f"peer-{number}", self.spec.run_id),
            lane=SimulatedLane((costs or Costs()).of),
            tokens_per_s=1000,
            memory_bytes=1 << 30,
            epoch=epoch,
            pinned=pinned,
        )
        member: Member = await self._nursery.start(self._train, number, peer, config, twist)
        self.members[peer.identity.peer_id] = self.known[peer.identity.peer_id] = member
        return member

    def crash(self, member: Member) -> None:
        """Kill a peer as by kill -9: nothing is said and nothing saved."""
        del self.members[member.peer.identity.peer_id]
        member.trainer.share.stages.clear()
        self.swarm.crash(member.peer.identity.peer_id)
        member.scope.cancel()

    async def stop(self, member: Member) -> None:
        """Let a peer leave in good order."""
        del self.members[member.peer.identity.peer_id]
        member.scope.cancel()
        await member.left.wait()
        await self.swarm.stop(member.peer.identity.peer_id)

    def holders(self, stage: int) -> Sequence[Member]:
        """Return the peers that serve a stage."""
        return [member for member in self.members.values() if stage in member.trainer.share.stages]

    @property
    def all_served(self) -> bool:
        """Whether every stage has somebody."""
        return all(self.holders(stage) for stage in range(self.spec.model.num_stages))

    async def until(self, reached: Callable[[], bool], timeout_s: float = 300) -> None:
        """Wait until something is so; raises trio.TooSlowError after `timeout_s` of virtual time."""
        with trio.fail_after(timeout_s):
            while not reached():  # noqa: ASYNC110 - what is waited for has no event of its own
                await trio.sleep(0.05)

    async def _train(
        self,
        number: int,
        peer: Peer,
        config: TrainerConfig,
        twist: Twist | None,
        task_status: trio.TaskStatus[Member] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        left = trio.Event()
        with trio.CancelScope() as scope:
            async with open_trainer(peer, self.spec, config) as trainer:
                if twist is not None:
                    await twist(peer, trainer)
                task_status.started(Member(number, peer, trainer, scope, left))
                await trio.sleep_forever()
        left.set()


@asynccontextmanager
async def open_training_swarm(
    seed: int, spec: RunSpec, folder: Path, link: LinkModel = LAN
) -> AsyncIterator[TrainingSwarm]:
    """Run a training swarm whose shards are in `folder`/shards; leaving the context stops every peer at once."""
    torch.set_num_threads(1)  # as peers do; and sums have one order
    async with open_swarm(seed, link) as swarm, trio.open_nursery() as nursery:
        training = TrainingSwarm(swarm, spec, folder, nursery)
        yield training
        for member in training.members.values():
            member.trainer.share.stages.clear()  # nothing is worth saving any more
        nursery.cancel_scope.cancel()


def small_run(
    folder: Path,
    *,
    seed: int = 0,
    num_stages: int = 2,
    boundary: str = "subspace",
    merge: MergeSpec | None = None,
    **epoch: int,
) -> RunSpec:
    """Pack real text into `folder`/shards and return the spec of a small run on it; the rest is as in `small_plan`."""
    plan = small_plan(num_stages=num_stages, boundary=boundary, merge=merge, **epoch)
    documents = islice(standard_library(), _NUM_DOCUMENTS)
    return found_run(plan, documents, ByteTokenizer(), ShardStore(folder / "shards"), seed=seed)


def small_plan(
    *, num_stages: int = 2, boundary: str = "subspace", merge: MergeSpec | None = None, **epoch: int
) -> RunPlan:
    """Return the plan of a run of one small block a stage; `epoch` overrides fields of the `EpochSpec`."""
    rules = {"microbatch_size": 2, "inner_steps": 1, "target_microbatches": 1 << 30, "deadline_s": 1 << 30}
    return RunPlan(
        name="small",
        model=ModelSpec(
            vocab_size=256,
            width=32,
            num_layers=num_stages,
            num_heads=2,
            num_kv_heads=2,
            ffn_width=64,
            sequence_length=32,
            stage_cuts=tuple(range(1, num_stages)),
        ),
        boundary=BoundarySpec(kind="none") if boundary == "none" else BoundarySpec(kind="subspace", width=3),
        # A stage clips by its own norm, which one process cannot do for all: comparisons need it off.
        optimizer=OptimizerSpec(clip_norm=Decimal(0), warmup_steps=4),
        epoch=EpochSpec.model_validate(rules | epoch),
        merge=merge,
    )
