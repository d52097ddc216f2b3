"""Whole epochs, many of them: what honest replicas end with, and whom proofs name."""

import pytest

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES
from tests.butterfly.swarm import Chaos, Swarm

CROWD = tuple(Identity.from_seed(digest(bytes([number]))) for number in range(50))
STORM = Chaos(killed=0.1, dies_reducing=0.05, cut=0.1, slow_s=0.2, lost_report=0.02)
THREE_BLOCKS = 2 * BLOCK_VALUES + 100


def storm(swarm: Swarm, num_epochs: int) -> None:
    for _ in range(num_epochs):
        swarm.run_epoch(STORM)
    check(swarm)


def check(swarm: Swarm) -> None:
    """Check that all are one after a calm epoch, and that only liars are accused."""
    for one in swarm.replicas:
        one.down_until = 0
    swarm.catch_up(swarm.replicas)
    swarm.run_epoch()
    swarm.catch_up(swarm.replicas)
    assert len({one.base for one in swarm.honest()}) == 1
    assert swarm.accused <= {one.identity.peer_id for one in swarm.replicas if one.lies}


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5, 8, 16])
def test_calm_epochs__all_merge_and_all_replicas_are_one(num_replicas: int) -> None:
    swarm = Swarm.of(CROWD[:num_replicas], seed=num_replicas, num_values=THREE_BLOCKS)
    for epoch in range(1, 4):
        swarm.run_epoch()
        assert swarm.num_merged == epoch
        assert len({one.base for one in swarm.replicas}) == 1
    assert not swarm.accused


@pytest.mark.parametrize("num_replicas", [2, 5])
def test_storm__leaves_honest_replicas_equal_and_nobody_accused(num_replicas: int) -> None:
    swarm = Swarm.of(CROWD[:num_replicas], seed=num_replicas, num_values=THREE_BLOCKS)
    storm(swarm, 50)
    assert swarm.num_merged > 25
    assert not swarm.accused


@pytest.mark.parametrize(("num_replicas", "num_liars"), [(4, 1), (7, 2)])
def test_liars__are_named_and_nobody_else(num_replicas: int, num_liars: int) -> None:
    swarm = Swarm.of(CROWD[:num_replicas], seed=1, num_liars=num_liars, num_values=THREE_BLOCKS)
    storm(swarm, 15)
    assert swarm.accused == {peer.peer_id for peer in CROWD[:num_liars]}


@pytest.mark.slow
@pytest.mark.parametrize(("num_replicas", "num_liars"), [(2, 0), (3, 0), (4, 1), (5, 1), (7, 2)])
def test_storm__of_ten_thousand_epochs_accuses_nobody_honest(num_replicas: int, num_liars: int) -> None:
    for seed in range(20):
        storm(Swarm.of(CROWD[:num_replicas], seed=seed, num_liars=num_liars), 100)


@pytest.mark.slow
def test_fifty_replicas__merge_for_two_hundred_epochs() -> None:
    swarm = Swarm.of(CROWD, seed=1)
    for _ in range(200):
        swarm.run_epoch()
    assert swarm.num_merged == 200
    check(swarm)
