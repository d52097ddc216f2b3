"""Paired probes: harm that the data's own spread hides shows in losses of the same data, whoever knows of it."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.microbatch import SECOND_VISIT, MicrobatchId
from iota_p2p_protocols.scoring.clasp import WIDTH, Floats, Levels, PeerEffects, explained_effects, stretches
from iota_p2p_protocols.scoring.paired_probes import Pairs, find_pairs, joined, paired_effects

NUM_STAGES, NUM_REPLICAS = 3, 4
MEAN, DATA_SPREAD, SPREAD = 4.5, 0.2, 0.03
LEARNT = 0.05  # by the first visit, so that the second finds a lower loss
ALICE, BOB = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))


def visited(seed: int, num_records: int, pair_every: int) -> tuple[Floats, list[Levels], Pairs]:
    """Return losses without harm, each stage's replicas, and the pairs: second visits stand at the end."""
    rng = np.random.default_rng(seed)
    num_pairs = num_records // (pair_every + 1)
    firsts_N = np.arange(num_pairs, dtype=np.intp)
    seconds_N = firsts_N + num_records - num_pairs
    data_R = rng.normal(MEAN, DATA_SPREAD, num_records)
    data_R[seconds_N] = data_R[firsts_N] - LEARNT
    stages = [rng.integers(0, NUM_REPLICAS, num_records).astype(np.intp) for _ in range(NUM_STAGES)]
    stages[0][seconds_N] = stages[0][firsts_N]  # the source's
    return data_R + rng.normal(0, SPREAD, num_records), stages, np.stack([firsts_N, seconds_N], axis=1)


def accused(fits: list[PeerEffects]) -> set[tuple[int, int]]:
    """Return who is certain to do harm, by stage and replica."""
    return {
        (stage, replica)
        for stage, fit in enumerate(fits)
        for replica in range(NUM_REPLICAS)
        if fit.interval(replica)[0] > 0
    }


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, NUM_STAGES - 1), st.integers(0, NUM_REPLICAS - 1))
def test_pairs__recover_what_was_put_in(seed: int, stage: int, bad: int) -> None:
    """Of two replicas of a stage that do harm, one on first visits and one on second; nobody else is accused."""
    harms, worse = (0.08, 0.05), (bad, (bad + 1) % NUM_REPLICAS)
    losses_R, stages, pairs_N2 = visited(seed, 1200, 1)
    for positions_N, harm, level in zip(pairs_N2.T, harms, worse, strict=True):
        losses_R[positions_N] += np.where(stages[stage][positions_N] == level, harm, 0)
    for fits, harm, level in zip(paired_effects(losses_R, stages, pairs_N2), harms, worse, strict=True):
        low, high = fits[stage].interval(level)
        assert low < harm < high
        assert high - low < harm
        assert accused(fits) == {(stage, level)}


def test_pairs__show_harm_that_the_data_hides_at_equal_records() -> None:
    """One per cent, 400 records: a third of the interval, and the harm is certain."""
    losses_R, stages, pairs_N2 = visited(3, 400, 1)
    losses_R *= np.where(stages[1] == 2, 1.01, 1.0)
    alone, (first, second) = explained_effects(losses_R, stages), paired_effects(losses_R, stages, pairs_N2)
    assert not accused(alone)
    assert accused(first) | accused(second) == {(1, 2)}
    assert (first[1].errors_P < 0.5 * alone[1].errors_P).all()


@pytest.mark.parametrize("visit", [0, 1])
def test_pairs__show_who_does_harm_on_one_visit_alone(visit: int) -> None:
    """A worker can know a second visit; the first ones show in full what it does there, and the other way round."""
    losses_R, stages, pairs_N2 = visited(5, 1000, 1)
    harmed_N = pairs_N2[:, visit]
    without = paired_effects(losses_R, stages, pairs_N2)
    losses_R[harmed_N[stages[1][harmed_N] == 1]] += 0.06
    fits = paired_effects(losses_R, stages, pairs_N2)
    # What the other visit's peers do is no noise on this one's.
    assert (fits[1 - visit][2].errors_P < 1.05 * without[1 - visit][2].errors_P).all()
    assert accused(fits[visit]) == {(1, 1)}
    assert not accused(fits[1 - visit])
    assert fits[visit][1].contrasts_P[1] == pytest.approx(0.06, abs=WIDTH * fits[visit][1].errors_P[1])


def test_joined__is_more_certain_than_any_of_them() -> None:
    """Half of the intervals of all records alone, where one record in five is a second visit; and no less right."""
    losses_R, stages, pairs_N2 = visited(2, 1000, 4)
    losses_R += np.where(stages[1] == 3, 0.03, 0)
    estimates = (explained_effects(losses_R, stages), *paired_effects(losses_R, stages, pairs_N2))
    together = [joined(stage) for stage in zip(*estimates, strict=True)]
    assert accused(together) == {(1, 3)}
    for stage, fit in enumerate(together[1:], start=1):
        assert all((fit.errors_P < one[stage].errors_P).all() for one in estimates)
        assert (fit.errors_P < 0.5 * estimates[0][stage].errors_P).all()
    low, high = together[1].interval(3)
    assert low < 0.03 < high


def test_joined__of_nothing_else_is_what_there_is() -> None:
    losses_R, stages, pairs_N2 = visited(0, 400, 16)
    alone = explained_effects(losses_R, stages)[0]
    together = joined([alone, *(fits[0] for fits in paired_effects(losses_R, stages, pairs_N2))])
    np.testing.assert_allclose(together.contrasts_P, alone.contrasts_P)
    np.testing.assert_allclose(together.errors_P, alone.errors_P)
    unknown = paired_effects(losses_R, stages, pairs_N2)[0][0]
    assert joined([unknown, unknown]).interval(0) == (-np.inf, np.inf)


def test_pairs__say_nothing_of_sources() -> None:
    """Whose harm is the same on both visits; however many pairs there are, all records judge it alone."""
    losses_R, stages, pairs_N2 = visited(4, 1000, 1)
    losses_R += np.where(stages[0] == 1, 0.3, 0)
    estimates = (explained_effects(losses_R, stages), *paired_effects(losses_R, stages, pairs_N2))
    for fits in estimates[1:]:
        assert np.isinf(fits[0].errors_P).all()
        assert not accused(fits)
    assert accused([joined(stage) for stage in zip(*estimates, strict=True)]) == accused(estimates[0]) == {(0, 1)}


def test_pairs__say_nothing_where_there_are_few() -> None:
    losses_R, stages, pairs_N2 = visited(0, 400, 16)
    for fits in paired_effects(losses_R, stages, pairs_N2):
        assert all(np.isinf(fit.errors_P).all() for fit in fits)
    for fits in paired_effects(losses_R, stages, np.zeros((0, 2), dtype=np.intp)):
        assert all(fit.interval(replica) == (-np.inf, np.inf) for fit in fits for replica in range(NUM_REPLICAS))


def test_pairs__are_these_very_bits() -> None:
    """No platform may round otherwise: a score is recomputed by people with other machines."""
    numbers_R = np.arange(600)
    losses_R = 4.0 + (numbers_R * 7919 % 1009) / 1000
    stages = [(numbers_R * (stage + 2) // 3 % (stage + 2)).astype(np.intp) for stage in range(3)]
    hasher = hashlib.sha256()
    for fits in paired_effects(losses_R, stages, np.stack([numbers_R[:200], numbers_R[200:400]], axis=1)):
        hasher.update(b"".join(fit.contrasts_P.tobytes() + fit.errors_P.tobytes() for fit in fits))
    assert hasher.hexdigest() == GOLDEN


GOLDEN = "add0dc8d6ba2b268cf106332f346e0823cbb0374174bcc8879f16d4632291d6a"


@pytest.mark.slow
def test_pairs__accuse_nobody_in_a_thousand_honest_epochs() -> None:
    """Of all sizes and shares of pairs, and with losses that fall."""
    for seed in range(1000):
        num_records, pair_every = 100 + 17 * (seed % 50), (1, 2, 4, 8)[seed % 4]
        losses_R, stages, pairs_N2 = visited(seed, num_records, pair_every)
        falling_R, stretch_R = losses_R - np.arange(num_records) / 1000, stretches(np.arange(num_records), 12)
        estimates = (explained_effects(falling_R, stages, [stretch_R]), *paired_effects(falling_R, stages, pairs_N2))
        for fits in (*estimates, [joined(stage) for stage in zip(*estimates, strict=True)]):
            assert not accused(fits), seed


def ids(source: PeerId, *counters: int) -> list[MicrobatchId]:
    return [MicrobatchId(epoch=0, source=source, counter=counter) for counter in counters]


def test_find_pairs__of_the_same_data_by_the_same_source() -> None:
    shown = [*ids(ALICE, 0, 1, SECOND_VISIT + 1, SECOND_VISIT + 9, 9), *ids(BOB, 2, SECOND_VISIT)]
    assert find_pairs(shown, 8).tolist() == [[1, 2], [4, 3]]
    assert find_pairs(shown, 0).tolist() == []
    assert find_pairs([], 8).shape == (0, 2)


def test_find_pairs__none_of_a_source_that_has_more_than_its_share() -> None:
    """Two second visits in one stretch of eight counters, even if only one of them makes a pair."""
    honest = ids(BOB, 3, SECOND_VISIT + 3)
    greedy = ids(ALICE, 1, 9, SECOND_VISIT + 1, SECOND_VISIT + 9, SECOND_VISIT + 7)
    assert find_pairs([*greedy, *honest], 8).tolist() == [[5, 6]]


def test_second_visit__has_an_id_of_its_own_and_the_data_of_the_first() -> None:
    (first,) = ids(ALICE, 5)
    second = first.second_visit()
    assert (first.is_second, second.is_second) == (False, True)
    assert (first.data_counter, second.data_counter) == (5, 5)
    assert second.digest(bytes(32)) != first.digest(bytes(32))
