"""A swarm of whole peers in one process, on the simulated network and trio's virtual clock.

The peers are the real ones (`open_peer`); only the host below them is simulated. A message's signature is checked
once in the process, not once per peer, because all of them share the cache in `membership.member`: the result is
that of a pure function of the same bytes.
"""

import gc
import hashlib
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio

from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryNetwork, open_memory_network
from iota_p2p.network.memory_events import TraceEvent
from iota_p2p.peer import Peer, PeerConfig, open_peer
from iota_p2p_crypto.identity import Identity, PeerId

# A calm wide-area network whose messages all take 50 ms, as they arrive together 20 times a second: simulates faster.
SWARM_LINK = LinkModel(tick_s=0.05)
# New objects between two looks for garbage cycles; Python's own 700 suits programs with fewer objects.
GARBAGE_OBJECTS = 100_000
EPOCH_S = 1_800_000_000.0  # what a simulated clock shows at virtual time 0; any fixed moment will do


def virtual_clock() -> float:
    """Return simulated Unix seconds."""
    return EPOCH_S + trio.current_time()


def identity_of(seed: int, number: int) -> Identity:
    """Return the identity of a swarm's numbered peer."""
    return Identity.from_seed(hashlib.sha256(f"swarm {seed} {number}".encode()).digest())


class Swarm:
    """Simulated peers; open one with `open_swarm`.

    Attributes:
        network: the wires between them, for faults.
        peers: those that are up.
    """

    def __init__(self, seed: int, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self.peers: dict[PeerId, Peer] = {}
        self._seed = seed
        self._nursery = nursery
        self._scopes: dict[PeerId, trio.CancelScope] = {}

    async def start(self, number: int, bootstrap: Sequence[PeerId]) -> Peer:
        """Start a peer and return it once it runs; joining goes on in the background."""
        peer: Peer = await self._nursery.start(self._run, number, bootstrap)
        return peer

    def crash(self, peer_id: PeerId) -> None:
        """Kill a peer as by kill -9: nothing is said, everything it had open breaks."""
        self.network.crash(peer_id)
        del self.peers[peer_id]
        self._scopes.pop(peer_id).cancel()

    async def stop(self, peer_id: PeerId) -> None:
        """Let a peer leave in good order."""
        del self.peers[peer_id]
        self._scopes.pop(peer_id).cancel()
        await trio.sleep(1)  # its goodbye travels

    def agreement(self, groups: Sequence[Collection[PeerId]] | None = None) -> float:
        """Return how right views are: the mean over peers of |view and truth| / |view or truth|.

        The truth for a peer is the set of peers that are up in its group; one group of all by default.
        """
        everybody = set(self.peers)
        shares = []
        for group in groups or [everybody]:
            truth = everybody & set(group)
            for peer_id in truth:
                live = set(self.peers[peer_id].view.live())
                shares.append(len(live & truth) / len(live | truth))
        return sum(shares) / len(shares)

    async def _run(
        self, number: int, bootstrap: Sequence[PeerId], task_status: trio.TaskStatus[Peer] = trio.TASK_STATUS_IGNORED
    ) -> None:
        identity = identity_of(self._seed, number)
        addresses = tuple(f"/memory/0/p2p/{peer_id}" for peer_id in bootstrap)
        config = PeerConfig(bootstrap=addresses, seed=self._seed)
        host = self.network.host(identity.peer_id)
        with trio.CancelScope() as scope:
            async with open_peer(identity, host, config, virtual_clock) as peer:
                self._scopes[identity.peer_id] = scope
                self.peers[identity.peer_id] = peer
                task_status.started(peer)
                await trio.sleep_forever()
        await host.aclose()


@contextmanager
def _collecting_garbage_rarely() -> Iterator[None]:
    """Let Python look for cycles less often: a swarm's millions of objects live long, and each look goes through them.

    It took a third of a simulation's time. What piles up between two looks is some 100 MB at most.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(GARBAGE_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@asynccontextmanager
async def open_swarm(
    seed: int, link: LinkModel | None = None, trace: list[TraceEvent] | None = None
) -> AsyncIterator[Swarm]:
    """Run a simulated swarm; leaving the context stops every peer at once."""
    note = None if trace is None else trace.append
    with _collecting_garbage_rarely():
        async with open_memory_network(seed, link or SWARM_LINK, note) as network, trio.open_nursery() as nursery:
            yield Swarm(seed, network, nursery)
            nursery.cancel_scope.cancel()
