import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_protocols.errors import LocalProtocolError
from iota_p2p_protocols.patience import CEILING_S, FLOOR_S, MIN_SAMPLES, WINDOW, Patience


def after(*durations_s: float) -> Patience:
    patience = Patience()
    for duration_s in durations_s:
        patience.record(duration_s)
    return patience


def test_timeout__is_the_ceiling_until_enough_is_known() -> None:
    assert after(*[1.0] * (MIN_SAMPLES - 1)).timeout_s() == CEILING_S
    assert after(*[1.0] * MIN_SAMPLES).timeout_s() == 3.0


@given(st.lists(st.floats(0, 1e6), max_size=100))
def test_timeout__stays_between_floor_and_ceiling(durations_s: list[float]) -> None:
    assert FLOOR_S <= after(*durations_s).timeout_s() <= CEILING_S


def test_timeout__follows_median_and_spread() -> None:
    assert after(1, 2, 3, 4, 5).timeout_s() == 3 + 8 * 1


def test_timeout__is_not_moved_by_one_outlier() -> None:
    assert after(*[1.0] * 20, 100.0).timeout_s() == after(*[1.0] * 21).timeout_s()


def test_timeout__never_cuts_off_a_stage_that_became_ten_times_slower_for_good() -> None:
    patience = after(*[1.0] * WINDOW)
    waits = 0
    while patience.timeout_s() < 10.0:
        patience.record(patience.timeout_s())  # every call times out
        waits += 1
        assert waits < 3 * WINDOW


def test_timeout__forgets_what_was_long_ago() -> None:
    assert after(*[50.0] * WINDOW, *[1.0] * WINDOW).timeout_s() == 3.0


@pytest.mark.parametrize("duration_s", [-1.0, math.inf, math.nan])
def test_record__refuses_what_is_no_duration(duration_s: float) -> None:
    with pytest.raises(LocalProtocolError):
        after(duration_s)


@pytest.mark.parametrize(("floor_s", "ceiling_s"), [(0.0, 1.0), (2.0, 1.0)])
def test_patience__refuses_bounds_that_are_none(floor_s: float, ceiling_s: float) -> None:
    with pytest.raises(LocalProtocolError):
        Patience(floor_s=floor_s, ceiling_s=ceiling_s)
