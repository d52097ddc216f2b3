"""Absences: what gossip rejects; whether a watcher counts is the view's question (`test_view`)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.domains import ABSENCE
from iota_p2p_protocols.absence import Absence, validate_absence_gossip
from iota_p2p_protocols.advert import LIFETIME_S
from iota_p2p_protocols.errors import IgnoreError, MalformedError, RejectError
from iota_p2p_protocols.ids import ABSENCES
from iota_p2p_protocols.message import UINT63_MAX, open_signed
from tests.core.members import NOW_S, OTHER_RUN, PEERS, RUN, absence_by, advert_of

WATCHER, SUBJECT = PEERS[:2]


def test_absence__passes_gossip_and_keeps_its_fields() -> None:
    verified = validate_absence_gossip(absence_by(WATCHER, SUBJECT, 9), WATCHER.peer_id, run_id=RUN, now_s=NOW_S)
    assert (verified.signer, verified.payload.peer_id, verified.payload.advert_sequence) == (
        WATCHER.peer_id,
        SUBJECT.peer_id,
        9,
    )


def test_largest_absence__fits_its_domain_and_topic() -> None:
    data = absence_by(WATCHER, SUBJECT, UINT63_MAX, sequence=UINT63_MAX, issued_s=2**40 - 1, expires_s=2**40)
    assert len(open_signed(data, Absence).payload_bytes) <= ABSENCE.max_payload_bytes
    assert len(data) <= ABSENCES.max_bytes


def test_absence_gossip__reject_nobody_declares_itself_absent() -> None:
    with pytest.raises(RejectError) as caught:
        validate_absence_gossip(absence_by(SUBJECT, SUBJECT), SUBJECT.peer_id, run_id=RUN, now_s=NOW_S)
    assert caught.value.rule == "absence-self"


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        ("gossip-author", absence_by(PEERS[2], SUBJECT)),
        ("run-id", absence_by(WATCHER, SUBJECT, run_id=OTHER_RUN)),
        ("lifetime", absence_by(WATCHER, SUBJECT, expires_s=NOW_S + LIFETIME_S + 1)),
        ("envelope-domain", advert_of(WATCHER)),
        ("signature", absence_by(WATCHER, SUBJECT)[:-1] + b"\0"),
    ],
)
def test_absence_gossip__reject_a_broken_rule(rule: str, data: bytes) -> None:
    with pytest.raises(RejectError) as caught:
        validate_absence_gossip(data, WATCHER.peer_id, run_id=RUN, now_s=NOW_S)
    assert caught.value.rule == rule


@pytest.mark.parametrize(("rule", "now_s"), [("expired", NOW_S + LIFETIME_S), ("issued-in-future", NOW_S - 31)])
def test_absence_gossip__ignore_what_is_not_current(rule: str, now_s: float) -> None:
    with pytest.raises(IgnoreError) as caught:
        validate_absence_gossip(absence_by(WATCHER, SUBJECT), WATCHER.peer_id, run_id=RUN, now_s=now_s)
    assert caught.value.rule == rule


def test_from_fields__refuses_a_subject_that_is_no_peer() -> None:
    fields = open_signed(absence_by(WATCHER, SUBJECT), Absence).payload.model_dump()
    with pytest.raises(MalformedError):
        Absence.from_fields({**fields, "peer_id": "12D3KooW"})


@given(st.binary(max_size=400))
def test_any_bytes__are_rejected_by_a_named_rule(data: bytes) -> None:
    with pytest.raises(RejectError):
        validate_absence_gossip(data, WATCHER.peer_id, run_id=RUN, now_s=NOW_S)
