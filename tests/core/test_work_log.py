from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.merkle import MerkleTree
from iota_p2p_protocols import work_log
from iota_p2p_protocols.errors import LocalProtocolError, RemoteProtocolError
from iota_p2p_protocols.message import UINT63_MAX
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.work_log import Backward, Forward, InnerStep, WorkLog
from tests.core.pathways import PEERS, microbatch


def forward(counter: int = 0) -> Forward:
    return Forward(microbatch=microbatch(counter), in_digest=bytes(32))


def backward(position: int) -> Backward:
    return Backward(forward=position, in_digest=bytes(32))


def log_of(*entries: Forward | Backward | InnerStep) -> WorkLog:
    log = WorkLog()
    for entry in entries:
        log.append(entry)
    return log


WORK = (forward(0), forward(1), backward(1), InnerStep(number=0), backward(0), InnerStep(number=1))


def test_log__survives_the_wire_with_its_root() -> None:
    log = log_of(*WORK)
    again = WorkLog.from_bytes(log.to_bytes())
    assert (again.entries, again.root) == (WORK, log.root)


def test_root__proves_a_stretch_of_entries() -> None:
    rows = canonical.decode(log_of(*WORK).to_bytes())
    assert log_of(*WORK).root == MerkleTree(map(canonical.encode, rows)).root()


def test_root__tells_orders_apart() -> None:
    assert log_of(forward(0), forward(1)).root != log_of(forward(1), forward(0)).root


def test_log__takes_a_second_attempt_at_one_microbatch() -> None:
    log_of(forward(0), forward(0), backward(1))


BROKEN = [
    ((backward(0),), "work-log-forward"),
    ((forward(), backward(0), backward(0)), "work-log-forward"),
    ((forward(), backward(1)), "work-log-forward"),
    ((InnerStep(number=0), backward(0)), "work-log-forward"),
    ((InnerStep(number=1),), "work-log-step"),
    ((InnerStep(number=0), InnerStep(number=0)), "work-log-step"),
]


@pytest.mark.parametrize(("entries", "rule"), BROKEN)
def test_from_bytes__refuses_entries_that_do_not_follow(entries: tuple[Any, ...], rule: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        WorkLog.from_bytes(canonical.encode([work_log._to_fields(entry) for entry in entries]))
    assert caught.value.rule == rule


@pytest.mark.parametrize("entries", [entries for entries, _ in BROKEN])
def test_append__calls_it_our_own_bug(entries: tuple[Any, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        log_of(*entries)


@pytest.mark.parametrize("row", [None, {}, {"nap": {}}, {"inner-step": {"number": 0}, "nap": 1}, {"backward": 1}, [1]])
def test_from_bytes__refuses_other_rows(row: object) -> None:
    with pytest.raises(RemoteProtocolError):
        WorkLog.from_bytes(canonical.encode([row]))


def test_log__is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_log, "MAX_ENTRIES", 2)
    with pytest.raises(LocalProtocolError):
        log_of(*WORK[:3])
    with pytest.raises(RemoteProtocolError) as caught:
        WorkLog.from_bytes(canonical.encode([work_log._to_fields(entry) for entry in WORK[:3]]))
    assert caught.value.rule == "work-log-length"


def test_longest_entry__fits_the_bound_on_bytes() -> None:
    longest = MicrobatchId(epoch=UINT63_MAX, source=PEERS[0].peer_id, counter=UINT63_MAX)
    entry = Forward(microbatch=longest, in_digest=bytes(32))
    assert len(log_of(entry).to_bytes()) <= work_log.MAX_LOG_BYTES // work_log.MAX_ENTRIES


@given(st.binary(max_size=200))
def test_any_bytes__are_a_log_or_refused(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert WorkLog.from_bytes(data).to_bytes() == data
