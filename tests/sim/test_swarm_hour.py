"""Whole peers in a simulated network under churn and partition: do their views find the truth, and how fast."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

import hashlib
from random import Random

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.memory_events import TraceEvent
from iota_p2p_testnet.simulation import Swarm, open_swarm

CONVERGE_S = 15.0  # after the last of a burst of changes


class Life:
    """A swarm that lives through scripted trouble, all of it drawn from one seed."""

    def __init__(self, swarm: Swarm, seed: int) -> None:
        self.swarm = swarm
        self._rng = Random(seed)  # noqa: S311 - a simulation
        self._number = 0

    async def grow(self, num_peers: int) -> None:
        """Start peers that join through one of those that are up."""
        for _ in range(num_peers):
            known = sorted(self.swarm.peers)
            bootstrap = self._rng.sample(known, min(3, len(known)))
            await self.swarm.start(self._number, bootstrap)
            self._number += 1
            await trio.sleep(self._rng.uniform(0, 0.1))

    async def churn(self, share: float) -> None:
        """Kill this share of the peers at random moments of half a minute, and start as many new ones."""
        for peer_id in self._rng.sample(sorted(self.swarm.peers), int(share * len(self.swarm.peers))):
            self.swarm.crash(peer_id)
            await self.grow(1)
            await trio.sleep(self._rng.uniform(0, 0.4))

    async def partition(self, duration_s: float) -> None:
        """Cut the network into two halves for a while."""
        peer_ids = sorted(self.swarm.peers)
        self._rng.shuffle(peer_ids)
        one, other = peer_ids[::2], peer_ids[1::2]
        self.swarm.network.block(one, other)
        self.swarm.network.block(other, one)
        await trio.sleep(duration_s)
        self.swarm.network.heal()


@pytest.mark.slow
async def test_swarm__views_converge_over_an_hour_of_churn_and_a_partition(autojump_clock: MockClock) -> None:
    """200 peers, 30 % of them replaced every 10 minutes, a 5-minute partition: >= 99 % of the truth within 15 s."""
    agreements = {}
    async with open_swarm(7) as swarm:
        life = Life(swarm, 7)
        await life.grow(200)
        await trio.sleep(CONVERGE_S)
        agreements["start"] = swarm.agreement()
        for period in range(6):
            began_s = trio.current_time()
            await life.churn(0.3)
            await trio.sleep(CONVERGE_S)
            agreements[f"churn {period}"] = swarm.agreement()
            if period == 2:
                await life.partition(300)
                await trio.sleep(CONVERGE_S)
                agreements["partition"] = swarm.agreement()
            await trio.sleep_until(began_s + 600)
        agreements["end"] = swarm.agreement()
    assert min(agreements.values()) >= 0.99, agreements


async def digest_of_life(seed: int) -> str:
    """Return a digest of everything that happened on the wires in a short, troubled life."""
    trace: list[TraceEvent] = []
    async with open_swarm(seed, trace=trace) as swarm:
        life = Life(swarm, seed)
        await life.grow(12)
        await trio.sleep(20)
        await life.churn(0.3)
        await life.partition(60)
        await trio.sleep(30)
    return hashlib.sha256("\n".join(map(str, trace)).encode()).hexdigest()


def test_swarm__same_seed_same_trace() -> None:
    first, again, other = (trio.run(digest_of_life, seed, clock=MockClock(autojump_threshold=0)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
