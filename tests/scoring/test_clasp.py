"""CLASP: who raises the loss is found, who stands beside it is not blamed, and the bits are the same everywhere."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_protocols.errors import LocalProtocolError
from iota_p2p_protocols.scoring.clasp import (
    Floats,
    Levels,
    explained_effects,
    mean_losses,
    peer_effects,
    stretches,
    z_scores,
)

NUM_STAGES, NUM_REPLICAS = 5, 5


def drawn(num_records: int, seed: int) -> Levels:
    """Return for each record and stage the replica that did it."""
    return np.random.default_rng(seed).integers(0, NUM_REPLICAS, size=(num_records, NUM_STAGES)).astype(np.intp)


def paper_toy(num_records: int, bad: dict[int, int], seed: int) -> tuple[Floats, Levels]:
    """IOTA's toy: losses from N(4.5, 0.2), a bad replica (stage: replica) raises mean and spread by a tenth."""
    replicas_RS = drawn(num_records, seed)
    is_bad_R = np.zeros(num_records, dtype=bool)
    for stage, replica in bad.items():
        is_bad_R |= replicas_RS[:, stage] == replica
    noise_R = np.random.default_rng(seed + 1).normal(0, 0.2, num_records)
    return np.where(is_bad_R, 1.1, 1.0) * (4.5 + noise_R), replicas_RS


def columns(replicas_RS: Levels) -> list[Levels]:
    return [np.ascontiguousarray(replicas_R) for replicas_R in replicas_RS.T]


def numbered(replicas_RS: Levels) -> Levels:
    """Number the replicas of all stages throughout."""
    return replicas_RS + NUM_REPLICAS * np.arange(NUM_STAGES)


def test_mean_losses__reproduce_the_papers_toy() -> None:
    """One bad peer of 25: 4.95 through it, 4.50 beside it, 4.59 elsewhere (facts, 1)."""
    losses_R, replicas_RS = paper_toy(40_000, {2: 3}, seed=0)
    means_P = mean_losses(losses_R, numbered(replicas_RS), NUM_STAGES * NUM_REPLICAS)
    assert means_P[2 * NUM_REPLICAS + 3] == pytest.approx(4.95, abs=0.01)
    assert means_P[2 * NUM_REPLICAS] == pytest.approx(4.50, abs=0.01)
    assert means_P[0] == pytest.approx(4.59, abs=0.01)
    assert np.argmax(z_scores(means_P)) == 2 * NUM_REPLICAS + 3


def test_mean_losses__nan_for_a_peer_without_a_record() -> None:
    means_P = mean_losses(np.array([4.0]), np.array([[0, 2]], dtype=np.intp), 4)
    assert np.isnan(means_P[[1, 3]]).all()
    assert means_P[[0, 2]] == pytest.approx([4.0, 4.0])
    assert np.isnan(z_scores(means_P)[1])


def test_effects__blame_every_bad_peer_and_no_honest_one() -> None:
    """Five bad ones of 25, which a global z-score misses (facts, 1)."""
    bad = dict(enumerate([3, 0, 1, 4, 2]))
    losses_R, replicas_RS = paper_toy(1000, bad, seed=4)
    for stage, effects in enumerate(peer_effects(losses_R, columns(replicas_RS))):
        for replica in range(NUM_REPLICAS):
            low, high = effects.interval(replica)
            assert (low > 0) == (bad[stage] == replica)
            assert low <= effects.contrasts_P[replica] <= high


def saturated(num_records: int, seed: int) -> tuple[Floats, Levels, dict[int, int]]:
    """Return the toy with a bad peer in every stage: two thirds of all pathways are bad, and none is worse than one."""
    bad = dict(enumerate([3, 0, 1, 4, 2]))
    return *paper_toy(num_records, bad, seed), bad


def test_explained__finds_harm_that_harm_elsewhere_hides() -> None:
    """250 records: a plain fit is certain of hardly any bad peer, the explained one of all; none accuses the honest."""
    losses_R, replicas_RS, bad = saturated(250, seed=4)
    certain = {}
    for fit in (peer_effects, explained_effects):
        found = fit(losses_R, columns(replicas_RS))
        certain[fit] = {
            (stage, replica)
            for stage, effects in enumerate(found)
            for replica in range(NUM_REPLICAS)
            if effects.interval(replica)[0] > 0
        }
    assert certain[explained_effects] == set(bad.items())
    assert certain[peer_effects] < certain[explained_effects]


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_explained__accuses_nobody_where_all_are_honest(seed: int, num_records: int) -> None:
    losses_R, replicas_RS = paper_toy(num_records, {}, seed)
    for effects in explained_effects(losses_R, columns(replicas_RS)):
        assert all(effects.interval(level)[0] <= 0 for level in range(effects.counts_P.size))


def test_explained__is_the_plain_fit_where_nobody_is_suspect() -> None:
    losses_R, replicas_RS = paper_toy(200, {}, seed=1)
    for one, other in zip(
        explained_effects(losses_R, columns(replicas_RS)), peer_effects(losses_R, columns(replicas_RS)), strict=True
    ):
        np.testing.assert_array_equal(one.contrasts_P, other.contrasts_P)


def test_effects__recover_what_was_put_in() -> None:
    replicas_RS = drawn(4000, seed=1)
    truth = np.random.default_rng(2).normal(0, 0.1, (NUM_STAGES, NUM_REPLICAS))
    losses_R = 4.0 + sum(truth[stage][replicas_RS[:, stage]] for stage in range(NUM_STAGES))
    for stage, effects in enumerate(peer_effects(losses_R, columns(replicas_RS))):
        for replica in range(NUM_REPLICAS):
            others = np.delete(truth[stage], replica)
            assert effects.contrasts_P[replica] == pytest.approx(truth[stage][replica] - np.median(others), abs=2e-3)


def test_effects__are_not_fooled_by_a_loss_that_falls() -> None:
    """A replica that did only the epoch's beginning looks bad until the stretches are taken out."""
    num_records = 800
    order_R = np.arange(num_records)
    replica_R = (order_R >= num_records // 4).astype(np.intp)
    replica_R[::2] = np.random.default_rng(0).integers(0, 2, num_records // 2)
    losses_R = 5.0 - 2.0 * order_R / num_records + np.random.default_rng(1).normal(0, 0.02, num_records)
    naive = peer_effects(losses_R, [replica_R])[0]
    fair = peer_effects(losses_R, [replica_R], [stretches(order_R, 16)])[0]
    assert naive.contrasts_P[0] > 0.3
    assert abs(fair.contrasts_P[0]) < 0.03


def test_effects__say_nothing_of_a_lone_replica_or_of_no_records() -> None:
    lone = peer_effects(np.array([4.0, 5.0]), [np.zeros(2, dtype=np.intp)])[0]
    assert lone.contrasts_P[0] == 0
    assert np.isinf(lone.errors_P[0])
    assert peer_effects(np.zeros(0), [np.zeros(0, dtype=np.intp)])[0].counts_P.size == 0


def test_effects__our_bug_if_a_loss_is_not_finite() -> None:
    with pytest.raises(LocalProtocolError):
        peer_effects(np.array([np.nan]), [np.zeros(1, dtype=np.intp)])


def test_effects__are_these_very_bits() -> None:
    """No platform may round otherwise: a score is recomputed by people with other machines."""
    numbers_R = np.arange(500)
    losses_R = 4.0 + (numbers_R * 7919 % 1009) / 1000
    replicas_RS = np.stack([numbers_R * (stage + 2) // 3 % (stage + 2) for stage in range(3)], axis=1)
    hasher = hashlib.sha256()
    losses_R[replicas_RS[:, 1] == 2] += 2.0
    for effects in explained_effects(losses_R, columns(replicas_RS), [stretches(numbers_R, 8)]):
        hasher.update(effects.contrasts_P.tobytes() + effects.errors_P.tobytes())
    assert hasher.hexdigest() == GOLDEN


GOLDEN = "c66dd19f1cc458382a6d09830dd0fd64d46847e8bf5fc342be88b103b7ada51a"


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.floats(-3, 3))
def test_effects__do_not_depend_on_the_level_of_all_losses(seed: int, num_records: int, shift: float) -> None:
    losses_R, replicas_RS = paper_toy(num_records, {0: 0}, seed)
    before = peer_effects(losses_R, columns(replicas_RS))
    after = peer_effects(losses_R + shift, columns(replicas_RS))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one.contrasts_P, other.contrasts_P, atol=1e-5)


@given(st.lists(st.integers(0, 1000), max_size=100), st.integers(1, 20))
def test_stretches__are_in_order_and_of_equal_length(order: list[int], num_stretches: int) -> None:
    found_R = stretches(np.array(order, dtype=np.int64), num_stretches)
    counts = np.bincount(found_R, minlength=num_stretches)
    assert counts.size == num_stretches
    assert counts.max(initial=0) - counts.min() <= 1
    by_order = [stretch for _, stretch in sorted(zip(order, found_R, strict=True), key=lambda pair: pair[0])]
    assert by_order == sorted(by_order)
