"""Peers that choose their stages by themselves, all at once and on views that are out of date."""

import pytest

from iota_p2p_testnet.swarm.churn import ALL_RULES, NO_REBALANCING, ChurnSetting, ChurnSwarm, simulate_churn


@pytest.mark.parametrize("seed", range(6))
def test_swarm__does_not_oscillate_on_stale_views(seed: int) -> None:
    """10 peers, 300 rounds, views up to 30 s old: at the end nobody has moved for half an hour."""
    setting = ChurnSetting(num_peers=10, costs=(1.2, 1, 1.5), lifetime_s=0, seed=seed, waver=0, max_lag=3)
    swarm = ChurnSwarm(setting)
    for _ in range(300):
        swarm.step()
    assert sum(when >= 1200 for when, _ in swarm.steps) == 0
    assert len(swarm.steps) < 60


@pytest.mark.parametrize("seed", range(2))
def test_swarm__stays_near_the_ideal_under_churn(seed: int) -> None:
    setting = ChurnSetting(
        num_peers=24, costs=(1,) * 4, lifetime_s=4 * 3600, seed=seed, duration_s=3600, warm_up_s=1200
    )
    result = simulate_churn(setting)
    assert result.of_ideal >= 0.93
    assert result.stalled == 0


def test_swarm__fills_stages_again_after_half_of_it_dies() -> None:
    swarm = ChurnSwarm(ChurnSetting(num_peers=12, costs=(1,) * 6, lifetime_s=0, most_stages=6))
    for _ in range(120):
        swarm.step()
    for peer_id in list(swarm.peers)[::2]:
        del swarm.peers[peer_id]
    figures = [swarm.step() for _ in range(120)]
    assert min(figures[10:]) > 0
    assert figures[-1] > 0.85


def test_swarm__needs_the_rules_it_has() -> None:
    """Without moves and takes the same swarm does worse; a test of the figure, not only of the rules."""
    figures = []
    for rules in (ALL_RULES, NO_REBALANCING):
        setting = ChurnSetting(
            num_peers=16, costs=(1,) * 4, lifetime_s=3600, seed=1, rules=rules, duration_s=2400, warm_up_s=600
        )
        figures.append(simulate_churn(setting).of_ideal)
    assert figures[0] > figures[1]
