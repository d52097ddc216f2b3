from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.audit.inspection import inspect_bytes
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.fault_file import pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.butterfly.vote_fault import make_vote_fault
from iota_p2p_protocols.errors import RemoteProtocolError
from tests.butterfly.rosters import FOUR
from tests.butterfly.rows import row_mean, row_members, signed_row
from tests.butterfly.test_merge_certificate import merged, refusal, signed
from tests.core.members import NOW_S, OTHER_RUN, RUN

LIAR, HONEST = FOUR[3], FOUR[0]
WHOLE = signed(merged(), *FOUR)
LIE = signed(merged(b"other"), LIAR)
FAULT = make_vote_fault(WHOLE, LIE, LIAR.peer_id)


def test_fault__names_who_signed_two_results() -> None:
    verdict = verify_fault(FAULT)
    assert (verdict.liar, verdict.kind) == (LIAR.peer_id, "merge")
    assert (verdict.run_id, verdict.epoch, verdict.stage) == (RUN, WHOLE.payload.epoch, WHOLE.payload.stage)
    assert make_vote_fault(LIE, WHOLE, LIAR.peer_id) == FAULT
    found = inspect_bytes(FAULT, RUN, NOW_S)
    assert (found["valid"], found["guilty"], found["fields"]["kind"]) == (True, LIAR.peer_id, "merge")


def test_fault__names_who_signed_two_means_of_a_row() -> None:
    liar = row_members(1)[0]
    whole, lie = signed_row(row_mean(1)), signed_row(row_mean(1, b"other"), liar)
    fault = make_vote_fault(whole, lie, liar.peer_id)
    verdict = verify_fault(fault)
    assert (verdict.liar, verdict.kind, verdict.stage) == (liar.peer_id, "row", whole.payload.stage)
    assert inspect_bytes(fault, RUN, NOW_S)["guilty"] == liar.peer_id
    assert refusal(lambda: make_vote_fault(whole, lie, row_members(1)[1].peer_id)) == "fault-liar"


def test_fault__names_nobody_who_signed_one_result() -> None:
    assert refusal(lambda: make_vote_fault(WHOLE, LIE, HONEST.peer_id)) == "fault-liar"
    assert refusal(lambda: make_vote_fault(WHOLE, LIE, Identity.from_seed(bytes(32)).peer_id)) == "fault-liar"


def test_fault__refused_when_the_result_is_the_same() -> None:
    """A certificate and a member's own vote are two envelopes of one result."""
    vote = signed(merged(), LIAR)
    assert refusal(lambda: make_vote_fault(WHOLE, vote, LIAR.peer_id)) == "fault-contradiction"
    assert refusal(lambda: make_vote_fault(LIE, LIE, LIAR.peer_id)) == "fault-order"


@pytest.mark.parametrize(
    "changes", [{"run_id": OTHER_RUN}, {"epoch": 99}, {"stage": 3}, {"roster": digest(b"another")}], ids=str
)
def test_fault__refused_when_the_results_are_of_two_merges(changes: Mapping[str, Any]) -> None:
    """Whoever takes part in two merges signs two results: after a network was cut, even of one epoch."""
    other = signed(merged(b"other", **changes), LIAR)
    assert refusal(lambda: make_vote_fault(WHOLE, other, LIAR.peer_id)) == "fault-same"


def test_fault__refused_when_malformed() -> None:
    header, _ = unpack_fault(FAULT)
    assert refusal(lambda: verify_fault(FAULT + b"\x00")) == "fault-blocks"
    assert refusal(lambda: verify_fault(pack_fault({**header, "more": 1}))) == "message-field"
    turned = {**header, "first": header["second"], "second": header["first"]}
    assert refusal(lambda: verify_fault(pack_fault(turned))) == "fault-order"
    forged = {**header, "first": header["first"][:-1] + b"?"}
    with pytest.raises(RemoteProtocolError):
        verify_fault(pack_fault(forged))


@given(st.integers(0, len(FAULT) - 1), st.integers(1, 255))
def test_any_changed_byte__breaks_the_proof_or_nothing(place: int, change: int) -> None:
    """No change makes it accuse somebody else."""
    broken = bytearray(FAULT)
    broken[place] ^= change
    with suppress(RemoteProtocolError):
        assert verify_fault(bytes(broken)).liar == LIAR.peer_id
