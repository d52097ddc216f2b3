"""Attribution: from checked records to work and harm per peer."""

from collections.abc import Sequence
from random import Random

import pytest

from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.scoring.attribution import attribute, mean_loss_micronats, understating_tails
from iota_p2p_protocols.scoring.evidence import JoinedEvidence, Witnessed, join_evidence, open_evidence
from tests.scoring.scenes import COSTS_PPM, NUM_TOKENS, RUN, STAGES, TERMS, commitment, loss_record, noisy, records

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
    parts = attribute(found, COSTS_PPM)
    assert sum(part.work for part in parts.values()) == 300 * NUM_TOKENS * sum(COSTS_PPM)
    worst = max(parts, key=lambda peer_id: parts[peer_id].low)
    assert worst == BAD.peer_id
    assert parts[worst].low > 200_000
    honest = [part for peer_id, part in parts.items() if peer_id != worst]
    assert all(part.low < 20_000 for part in honest)
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
    lied = attribute(evidence, COSTS_PPM, {liar.peer_id} if discredited else ())
    assert all(part.low <= 0 for part in lied.values())
    assert (lied[liar.peer_id].effect, lied[liar.peer_id].low) == (0, -(10**9))
    assert lied[liar.peer_id].num_records > 100
    if discredited:
        assert attribute(evidence, COSTS_PPM)[STAGES[-1][1].peer_id].low > 200_000  # of two, the honest one looks bad
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
    assert attribute(evidence, COSTS_PPM)[bad.peer_id].low > 200_000


def test_attribution__of_nothing_is_nothing() -> None:
    empty = JoinedEvidence((), {}, {}, {})
    assert attribute(empty, COSTS_PPM) == {}
    assert mean_loss_micronats(empty) == 0


def test_attribution__of_a_peer_that_holds_all_stages_counts_it_once() -> None:
    path = (STAGES[0][0],) * len(STAGES)
    one = Witnessed(loss_record(path, 0, 4_000_000), tuple(peer.peer_id for peer in path))
    part = attribute(JoinedEvidence((one,), {}, {}, {}), COSTS_PPM)[path[0].peer_id]
    assert (part.work, part.num_records, part.effect) == (NUM_TOKENS * sum(COSTS_PPM), 1, 0)
