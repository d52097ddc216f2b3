"""Rates measured on the transfers that happen anyway, and when they are worth telling everybody."""

import pytest

from iota_p2p.network.rate_meter import KEPT_TRANSFERS, MIN_BYTES, MIN_S, RateMeter
from iota_p2p.network.traffic import Traffic
from iota_p2p.peer import measured_anew
from iota_p2p_protocols.advert import Capacity


def test_rate__is_that_of_the_fastest_recent_transfer() -> None:
    meter = RateMeter()
    meter.note(4 * MIN_BYTES, 1)
    meter.note(2 * MIN_BYTES, 1)
    assert meter.bytes_per_s == 4 * MIN_BYTES
    for _ in range(KEPT_TRANSFERS):
        meter.note(MIN_BYTES, 1)
    assert meter.bytes_per_s == MIN_BYTES


@pytest.mark.parametrize(("size_bytes", "took_s"), [(MIN_BYTES - 1, 1.0), (MIN_BYTES, MIN_S / 2), (MIN_BYTES, 0.0)])
def test_rate__not_told_by_what_buffers_hold(size_bytes: int, took_s: float) -> None:
    meter = RateMeter()
    meter.note(size_bytes, took_s)
    assert meter.bytes_per_s == 0


def traffic_of(upload_bytes_per_s: int) -> Traffic:
    traffic = Traffic()
    traffic.upload.note(upload_bytes_per_s, 1)
    return traffic


@pytest.mark.parametrize(("factor", "told"), [(1.4, False), (1.6, True), (0.7, False), (0.6, True)])
def test_capacity__told_anew_when_a_rate_changes_by_half(factor: float, told: bool) -> None:  # noqa: FBT001
    said = Capacity(upload_bytes_per_s=10 * MIN_BYTES, memory_bytes=7)
    now = int(factor * 10 * MIN_BYTES)
    expected = said.model_copy(update={"upload_bytes_per_s": now}) if told else said
    assert measured_anew(said, traffic_of(now), 0) == expected


def test_capacity__told_anew_when_the_load_changes_by_a_quarter() -> None:
    said = Capacity(load_percent=50)
    assert measured_anew(said, Traffic(), 74) == said
    assert measured_anew(said, Traffic(), 25) == Capacity(load_percent=25)
