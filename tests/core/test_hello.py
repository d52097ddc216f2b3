"""Hello: one run, one common version, and an estimate of the other's clock."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_protocols.errors import MalformedError, RemoteProtocolError, UnsupportedVersionError, WrongRunError
from iota_p2p_protocols.hello import Hello, agree, clock_offset_s
from iota_p2p_protocols.ids import HELLO, NO_RUN
from tests.core.members import OTHER_RUN, RUN

versions = st.integers(1, 9)


def hello(oldest: int = 1, newest: int = 1, run_id: bytes = RUN, clock_ms: int = 0) -> Hello:
    return Hello(oldest_version=oldest, newest_version=newest, run_id=run_id, software="test/1", clock_ms=clock_ms)


@given(versions, versions, versions, versions)
def test_agree__finds_the_newest_common_version_for_both_alike(a: int, b: int, c: int, d: int) -> None:
    ours, theirs = hello(min(a, b), max(a, b)), hello(min(c, d), max(c, d))
    common = set(range(min(a, b), max(a, b) + 1)) & set(range(min(c, d), max(c, d) + 1))
    if common:
        assert agree(ours, theirs) == agree(theirs, ours) == max(common)
    else:
        for first, second in ((ours, theirs), (theirs, ours)):
            with pytest.raises(UnsupportedVersionError) as caught:
                agree(first, second)
            assert caught.value.rule == "hello-version"


def test_agree__refuses_another_run_before_another_version() -> None:
    with pytest.raises(WrongRunError) as caught:
        agree(hello(), hello(2, 2, OTHER_RUN))
    assert caught.value.rule == "hello-run"


@pytest.mark.parametrize(("ours", "theirs"), [(NO_RUN, RUN), (RUN, NO_RUN), (NO_RUN, NO_RUN), (RUN, RUN)])
def test_agree__takes_the_same_run_or_none(ours: bytes, theirs: bytes) -> None:
    assert agree(hello(run_id=ours), hello(run_id=theirs)) == 1


def test_agree__refuses_a_peer_whose_versions_are_upside_down() -> None:
    with pytest.raises(UnsupportedVersionError):
        agree(hello(1, 1), hello(2, 1))


@given(st.integers(0, 2**40), st.floats(0, 60), st.integers(-(10**6), 10**6))
def test_clock_offset__is_right_to_half_the_round_trip(sent_s: int, trip_s: float, ahead_s: int) -> None:
    answered_s = max(0.0, sent_s + trip_s / 3 + ahead_s)
    offset_s = clock_offset_s(hello(clock_ms=int(answered_s * 1000)), sent_s, sent_s + trip_s)
    assert abs(offset_s - (answered_s - sent_s - trip_s / 3)) <= trip_s / 2 + 0.01


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("oldest_version", 0),
        ("newest_version", 2**16 + 1),
        ("run_id", RUN[1:]),
        ("software", "s" * 65),
        ("clock_ms", -1),
        ("clock_ms", 1.5),
        ("name", "me"),
    ],
)
def test_from_fields__refuses_what_is_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        Hello.from_fields({**hello().to_fields(), field: value})


def test_largest_hello__fits_its_protocol() -> None:
    largest = hello(2**16, 2**16, clock_ms=2**63 - 1).model_copy(update={"software": "\U0001f600" * 64})
    assert len(canonical.encode(largest.to_fields())) <= HELLO.max_header_bytes


@given(st.dictionaries(st.sampled_from(sorted(Hello.model_fields)), st.none() | st.integers() | st.binary()))
def test_any_header__is_a_hello_or_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        Hello.from_fields(fields)
