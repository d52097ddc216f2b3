from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly import fault_file
from iota_p2p_protocols.butterfly.fault_file import MAGIC, cut, pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.faults import is_fault, verify_fault
from iota_p2p_protocols.butterfly.reducer_report import ShardClaim
from iota_p2p_protocols.butterfly.report_fault import make_report_fault
from iota_p2p_protocols.errors import LocalProtocolError, RemoteProtocolError
from tests.butterfly.reports import EPOCH, STAGE, report, signed
from tests.core.members import OTHER_RUN, PEERS, RUN

LIAR = PEERS[3]
CLAIMS = (ShardClaim(shard=1, digest=digest(b"one")), ShardClaim(shard=4, digest=digest(b"four")))
ANOTHER = ShardClaim(shard=4, digest=digest(b"not four"))
FEWER = ShardClaim(shard=4, digest=digest(b"four"), missing=(0,))
ONE = signed(report(CLAIMS), LIAR)
OTHER = signed(report((ANOTHER,), sequence=2), LIAR)
FAULT = make_report_fault(ONE, OTHER)


def rule_of(data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_fault(data)
    return caught.value.rule


@pytest.mark.parametrize("second", [ANOTHER, FEWER])
def test_fault__names_who_said_two_things(second: ShardClaim) -> None:
    data = make_report_fault(signed(report((second,)), LIAR), ONE)
    verdict = verify_fault(data)
    assert is_fault(data)
    assert (verdict.liar, verdict.kind) == (LIAR.peer_id, "report")
    assert (verdict.run_id, verdict.epoch, verdict.stage) == (RUN, EPOCH, STAGE)
    assert "shard 4" in verdict.reason


def test_fault__is_one_file_whoever_makes_it() -> None:
    assert make_report_fault(OTHER, ONE) == FAULT


@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({"run_id": OTHER_RUN}, LIAR),
        ({"epoch": EPOCH + 1}, LIAR),
        ({"stage": STAGE + 1}, LIAR),
        ({"roster": digest(b"another")}, LIAR),
        ({}, PEERS[4]),
    ],
)
def test_fault__refused_when_the_reports_are_of_two_kinds(changes: dict[str, Any], by: Identity) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        make_report_fault(ONE, signed(report((ANOTHER,), **changes), by))
    assert caught.value.rule == "fault-same"


def test_honest_reports__that_grow_are_no_fault() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        make_report_fault(ONE, signed(report(CLAIMS[:1]), LIAR))
    assert caught.value.rule == "fault-contradiction"


def test_fault__refused_when_both_are_the_same() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        make_report_fault(ONE, ONE)
    assert caught.value.rule == "fault-order"


def test_fault__refused_when_malformed() -> None:
    header, _ = unpack_fault(FAULT)
    assert rule_of(FAULT + b"\x00") == "fault-blocks"
    assert rule_of(FAULT[:-1]) == "fault-form"
    assert rule_of(FAULT[1:]) == "fault-form"
    assert rule_of(MAGIC) == "fault-form"
    assert rule_of(pack_fault([])) == "fault-form"
    assert rule_of(pack_fault({**header, "fault": "rumour"})) == "fault-kind"
    assert rule_of(pack_fault({**header, "fault": 1})) == "fault-kind"
    assert rule_of(pack_fault({**header, "more": 1})) == "message-field"
    assert rule_of(pack_fault({**header, "first": header["first"][:-1] + b"?"})) == "signature"


def test_fault__is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_file, "MAX_FAULT_BYTES", len(FAULT) - 1)
    assert rule_of(FAULT) == "fault-size"
    monkeypatch.setattr(fault_file, "MAX_HEADER_BYTES", 10)
    with pytest.raises(LocalProtocolError):
        pack_fault({"fault": "a" * 10})


@given(st.integers(0, len(FAULT) - 1), st.integers(1, 255))
def test_any_changed_byte__breaks_the_proof_or_nothing(place: int, change: int) -> None:
    """No change makes it accuse somebody else."""
    broken = bytearray(FAULT)
    broken[place] ^= change
    with suppress(RemoteProtocolError):
        assert verify_fault(bytes(broken)).liar == LIAR.peer_id


@given(st.binary(max_size=300))
def test_any_bytes__are_refused(data: bytes) -> None:
    rule_of(data)
    rule_of(MAGIC + data)


def test_cut__gives_the_blocks_in_order() -> None:
    assert cut(memoryview(b"abcdef"), (1, 0, 5)) == [b"a", b"", b"bcdef"]
