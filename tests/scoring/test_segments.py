"""Where a work log is cut, and what a replay from a cut needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_protocols.scoring.segments import (
    MAX_SEGMENTS,
    most_segments,
    segments_committed,
    segments_of,
    stashed_versions,
    stride_of,
    versions_of,
)
from iota_p2p_protocols.work_log import Backward, Forward, InnerStep, WorkLog
from tests.core.pathways import microbatch


def late_log(num_steps: int, late: int = 3) -> WorkLog:
    """Return a log with one microbatch to a step, each going back when `late` more have gone forward."""
    log, waiting = WorkLog(), []
    for counter in range(num_steps + late):
        waiting.append(log.append(Forward(microbatch=microbatch(counter), in_digest=bytes(32))))
        if counter >= late:
            log.append(Backward(forward=waiting[counter - late], in_digest=bytes(32)))
            log.append(InnerStep(number=counter - late))
    return log


@given(st.integers(0, 300), st.integers(1, MAX_SEGMENTS))
def test_segments__cover_the_log_and_begin_after_steps(num_steps: int, most: int) -> None:
    log = late_log(num_steps)
    segments = segments_of(log, most)
    assert 1 <= len(segments) <= most
    assert [one.index for one in segments] == list(range(len(segments)))
    assert [0, *(one.end for one in segments)] == [*(one.first for one in segments), len(log)]
    assert all(isinstance(log.entries[one.first - 1], InnerStep) for one in segments[1:])
    assert num_steps < 2 * most or len(segments) > most // 2


def test_segments_committed__are_those_that_follow_or_half_as_many() -> None:
    log = late_log(16)
    found = {count: segments_committed(log, 16, count) for count in range(1, 18)}
    assert {count for count, segments in found.items() if segments} == {8, 16}
    assert found[8] == segments_of(log, 8)


@given(st.integers(1, 300), st.integers(1, MAX_SEGMENTS))
def test_stride__only_ever_doubles(num_steps: int, most: int) -> None:
    """So whoever drops every second state as a log grows is left with those at the cuts."""
    assert stride_of(num_steps + 1, most) in (stride_of(num_steps, most), 2 * stride_of(num_steps, most))


def test_stash__has_the_weights_of_what_was_under_way() -> None:
    log = late_log(8, late=3)
    first, second, *_ = segments_of(log, 4)
    assert stashed_versions(log, first.first) == ()
    versions = versions_of(log)
    crossing = [p for p, e in enumerate(log.entries[: second.first]) if isinstance(e, Forward)][-3:]
    assert stashed_versions(log, second.first) == tuple(sorted({versions[p] for p in crossing})) == (0, 1)


@pytest.mark.parametrize(("limit", "expected"), [(0, 1), (6 * 100, 1), (6 * 500, 5), (1 << 40, MAX_SEGMENTS)])
def test_most_segments__fits_the_states_into_a_limit(limit: int, expected: int) -> None:
    assert most_segments(100, limit) == expected
