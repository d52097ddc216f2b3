"""Evidence: what holders committed to is what they show, and who shows less or says two things is found."""

from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError, OversizedError, StaleError
from iota_p2p_protocols.scoring.evidence import EvidenceTerms, join_evidence, open_evidence
from tests.scoring.scenes import EPOCH, RUN, STAGES, TERMS, commitment, loss_record, noisy, records

RECORDS = records(24, noisy)
TAILS, SOURCES = STAGES[-1], STAGES[0]


def of_tail(tail: int) -> list:  # type: ignore[type-arg] # records
    return [record for record in RECORDS if record.signer == TAILS[tail].peer_id]


def of_source(source: int) -> list:  # type: ignore[type-arg] # records
    return [record for record in RECORDS if record.payload.microbatch.source == SOURCES[source].peer_id]


def test_evidence__opens_to_records_with_their_pathways() -> None:
    promised, envelopes = commitment(TAILS[0], "tail", of_tail(0))
    shown = open_evidence(promised, envelopes, TERMS)
    assert [one.record.envelope_bytes for one in shown] == envelopes
    assert all(one.pathway[-1] == TAILS[0].peer_id and len(one.pathway) == len(STAGES) for one in shown)


def test_evidence__reject_fewer_others_or_reordered_records() -> None:
    promised, envelopes = commitment(TAILS[0], "tail", of_tail(0))
    with pytest.raises(OversizedError, match=r"expected \d+ records"):
        open_evidence(promised, envelopes[1:], TERMS)
    for bad in (
        [*envelopes[1:], envelopes[0]],
        [*envelopes[:-1], of_tail(1)[0].envelope_bytes],
        [*envelopes[:-1], envelopes[-1][:-1] + bytes([envelopes[-1][-1] ^ 1])],
    ):
        with pytest.raises(InvalidProofError, match="records under"):
            open_evidence(promised, bad, TERMS)


def test_evidence__reject_records_that_are_anothers_to_show() -> None:
    for holder, role, held in ((TAILS[0], "tail", of_tail(1)), (SOURCES[0], "source", of_source(1))):
        promised, envelopes = commitment(holder, role, held)  # type: ignore[arg-type] # a role
        with pytest.raises(InvalidSignatureError, match="expected records of"):
            open_evidence(promised, envelopes, TERMS)


def test_evidence__reject_records_of_another_epoch() -> None:
    promised, envelopes = commitment(TAILS[0], "tail", of_tail(0))
    terms = EvidenceTerms(run_id=RUN, num_stages=len(STAGES), epoch=EPOCH + 1)
    with pytest.raises(StaleError):
        open_evidence(promised, envelopes, terms)


def shown_by(tails: list, sources: list) -> list:  # type: ignore[type-arg] # (commitment, records)
    """What each of the tails and sources shows, opened."""
    shown = []
    for holders, role, parts in ((TAILS, "tail", tails), (SOURCES, "source", sources)):
        for holder, held in zip(holders, parts, strict=True):
            promised, envelopes = commitment(holder, role, held)  # type: ignore[arg-type] # a role
            shown.append((promised, open_evidence(promised, envelopes, TERMS)))
    return shown


def test_joined__counts_each_microbatch_once_in_any_order_of_holders() -> None:
    shown = shown_by([of_tail(0), of_tail(1)], [of_source(0), of_source(1)])
    expected = {record.envelope_bytes for record in RECORDS}
    for order in permutations(shown):
        joined = join_evidence(order, RUN)
        assert {one.record.envelope_bytes for one in joined.records} == expected
        assert joined == join_evidence(shown, RUN)
        assert not joined.withheld
        assert not joined.contradicted


@given(st.integers(0, 5))
def test_joined__counts_what_a_tail_withheld_and_sources_show(num_withheld: int) -> None:
    held = of_tail(0)[num_withheld:]
    joined = join_evidence(shown_by([held, of_tail(1)], [of_source(0), of_source(1)]), RUN)
    assert joined.withheld == ({TAILS[0].peer_id: num_withheld} if num_withheld else {})
    assert len(joined.records) == len(RECORDS)
    owed = len(of_tail(0))
    assert joined.shown_ppm(TAILS[0].peer_id) == 1_000_000 * (owed - num_withheld) // owed
    assert joined.shown_ppm(TAILS[1].peer_id) == joined.shown_ppm(SOURCES[0].peer_id) == 1_000_000


def test_joined__names_a_tail_that_signed_two_losses_of_one_chain() -> None:
    path = [STAGES[0][0], STAGES[1][0], TAILS[0]]
    said, also_said = loss_record(path, 900, 4_000_000), loss_record(path, 900, 4_100_000)
    joined = join_evidence(shown_by([[said], []], [[also_said], []]), RUN)
    assert joined.contradicted == {TAILS[0].peer_id: 1}
    assert joined.shown_ppm(TAILS[0].peer_id) == 0
    assert len(joined.records) == 1


def test_joined__blames_nobody_for_a_microbatch_that_was_driven_twice() -> None:
    rng = Random(0)  # noqa: S311 - test data
    one = loss_record([STAGES[0][0], STAGES[1][0], TAILS[0]], 900, noisy([], rng))
    again = loss_record([STAGES[0][0], STAGES[1][1], TAILS[0]], 900, noisy([], rng))
    joined = join_evidence(shown_by([[one, again], []], [[one, again], []]), RUN)
    assert not joined.contradicted
    assert len(joined.records) == 1
