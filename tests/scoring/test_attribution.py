"""Attribution: from checked records to work and harm per peer."""

from collections.abc import Sequence
from random import Random

import pytest

from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.microbatch import SECOND_VISIT
from iota_p2p_protocols.scoring.attribution import attribute, mean_loss_micronats, understating_tails
from iota_p2p_protocols.scoring.evidence import JoinedEvidence, Witnessed, join_evidence, open_evidence
from tests.scoring.scenes import NUM_TOKENS, RULES, RUN, STAGES, TERMS, commitment, loss_record, noisy, records

BAD = STAGES[1][1]


def harmed(path: Sequence[Identity], rng: Random) -> int:
    return round(noisy(path, rng) * (1.1 if BAD in path else 1.0))


def joined(num_records: int) -> JoinedEvidence:
    made = records(num_records, harmed)
    shown = []
    for tail in STAGES[-1]:
        promised, envelopes = commitment(tail, "tail", [one for one in made if one.signer == tail.peer_id])
        shown.append((promised, open_evidence(promised, envelopes, TERMS)))
    return join_evidence(shown, RUN)


def test_attribution__finds_the_harmful_peer_and_adds_up_the_work() -> None:
    found = joined(300)
    parts = attribute(found, RULES)
    assert sum(part.work for part in parts.values()) == 300 * NUM_TOKENS * sum(RULES.costs_ppm)
    worst = max(parts, key=lambda peer_id: parts[peer_id].harm.low)
    assert worst == BAD.peer_id
    assert parts[worst].harm.low > 200_000
    honest = [part for peer_id, part in parts.items() if peer_id != worst]
    assert all(part.harm.low < 20_000 for part in honest)
    assert all(part.num_records > 100 for part in parts.values())
    assert 4_500_000 < mean_loss_micronats(found) < 5_000_000


@pytest.mark.parametrize("discredited", [False, True], ids=["beside two others", "discredited"])
def test_attribution__believes_no_tail_that_understates(*, discredited: bool) -> None:
    """An honest tail beside a liar looks harmful, and its callers lose records to compare; now neither does."""
    liar = Identity.from_seed(bytes([99]) * 32)
    tails = (*STAGES[-1], liar)[discredited:]
    rng, told = Random(1), []  # noqa: S311 - test data
    for counter in range(400):
        path = [*(rng.choice(replicas) for replicas in STAGES[:-1]), rng.choice(tails)]
        told.append((path, counter, round(noisy(path, rng) * (0.9 if liar in path else 1.0))))
    evidence = JoinedEvidence(
        tuple(Witnessed(loss_record(*one), tuple(peer.peer_id for peer in one[0])) for one in told), {}, {}, {}
    )
    lied = attribute(evidence, RULES, {liar.peer_id} if discredited else ())
    assert all(part.harm.low <= 0 for part in lied.values())
    assert (lied[liar.peer_id].harm.effect, lied[liar.peer_id].harm.low) == (0, -(10**9))
    assert lied[liar.peer_id].num_records > 100
    if discredited:
        assert attribute(evidence, RULES)[STAGES[-1][1].peer_id].harm.low > 200_000  # of two, the honest one looks bad
    else:
        assert understating_tails(evidence, len(STAGES)) == {liar.peer_id}


def test_attribution__believes_tails_beside_one_that_does_harm() -> None:
    """Two good ones beside a bad one are lower than it, but not than each other."""
    bad = Identity.from_seed(bytes([99]) * 32)
    rng, records = Random(1), []  # noqa: S311 - test data
    for counter in range(400):
        path = [*(rng.choice(replicas) for replicas in STAGES[:-1]), rng.choice((*STAGES[-1], bad))]
        record = loss_record(path, counter, round(noisy(path, rng) * (1.1 if bad in path else 1.0)))
        records.append(Witnessed(record, tuple(peer.peer_id for peer in path)))
    evidence = JoinedEvidence(tuple(records), {}, {}, {})
    assert not understating_tails(evidence, len(STAGES))
    assert attribute(evidence, RULES)[bad.peer_id].harm.low > 200_000


def visited_twice(seed: int, pair_every: int) -> JoinedEvidence:
    """Return an epoch in which BAD raises losses by a fiftieth, and data differ by far more than that."""
    rng, made = Random(seed), []  # noqa: S311 - test data
    for counter in range(600):
        data = rng.gauss(4_500_000, 300_000)
        for visit in range(1 + (counter % pair_every == 0)):
            path = [STAGES[0][counter % 2], *(rng.choice(replicas) for replicas in STAGES[1:])]
            loss = round((data + rng.gauss(0, 20_000)) * (1.02 if BAD in path else 1.0))
            record = loss_record(path, counter + visit * SECOND_VISIT, loss)
            made.append(Witnessed(record, tuple(peer.peer_id for peer in path)))
    return JoinedEvidence(tuple(made), {}, {}, {})


def test_attribution__finds_by_pairs_what_the_data_hides() -> None:
    evidence = visited_twice(seed=1, pair_every=4)
    parts = attribute(evidence, RULES.model_copy(update={"pair_every": 4}))
    assert {peer_id for peer_id, part in parts.items() if part.by_records.low > 0} == set()
    assert {peer_id for peer_id, part in parts.items() if part.by_pairs.low > 0} == {BAD.peer_id}
    bad = parts[BAD.peer_id]
    assert bad.harm == bad.by_both
    assert bad.by_both.low > bad.by_pairs.low
    assert bad.harm.low < 90_000 < bad.harm.high
    assert sum(part.num_pairs for part in parts.values()) == 2 * 150 * len(STAGES)
    assert all(part.harm.low <= 0 for part in attribute(evidence, RULES).values())  # a run that has no pairs


def test_attribution__hides_nothing_behind_pairs() -> None:
    """Who behaves on both visits, told by a source which ones they are, is found by everything else."""
    rng, made = Random(1), []  # noqa: S311 - test data
    for counter in range(600):
        for visit in range(1 + (counter % 4 == 0)):
            path = [STAGES[0][counter % 2], *(rng.choice(replicas) for replicas in STAGES[1:])]
            harm = 1.1 if BAD in path and counter % 4 else 1.0
            record = loss_record(path, counter + visit * SECOND_VISIT, round(noisy(path, rng) * harm))
            made.append(Witnessed(record, tuple(peer.peer_id for peer in path)))
    part = attribute(JoinedEvidence(tuple(made), {}, {}, {}), RULES.model_copy(update={"pair_every": 4}))[BAD.peer_id]
    assert part.by_pairs.low < 0 < part.by_records.low
    assert part.by_both.low < part.by_records.low == part.harm.low


def test_attribution__of_nothing_is_nothing() -> None:
    empty = JoinedEvidence((), {}, {}, {})
    assert attribute(empty, RULES) == {}
    assert mean_loss_micronats(empty) == 0


def test_attribution__of_a_peer_that_holds_all_stages_counts_it_once() -> None:
    path = (STAGES[0][0],) * len(STAGES)
    one = Witnessed(loss_record(path, 0, 4_000_000), tuple(peer.peer_id for peer in path))
    part = attribute(JoinedEvidence((one,), {}, {}, {}), RULES)[path[0].peer_id]
    assert (part.work, part.num_records, part.harm.effect) == (NUM_TOKENS * sum(RULES.costs_ppm), 1, 0)
