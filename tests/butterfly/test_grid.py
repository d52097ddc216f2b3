from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.grid import MAX_ROWS, combine_rows, take_seat
from iota_p2p_protocols.butterfly.reduce import MAX_BOAST, counted_samples, reduce_block
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import LocalProtocolError
from tests.butterfly.gradients import vector

SEED = digest(b"seed")
EXACT = CODECS["float32"]
MANY = [Identity.from_seed(number.to_bytes(32, "big")).peer_id for number in range(300)]


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(3, MAX_MEMBERS))
def test_rows__hold_everybody_once_and_no_more_than_a_roster_takes(count: int, most: int) -> None:
    peers = MANY[:count]
    seat = take_seat(SEED, 1, peers[0], peers[1:], most)
    assert sorted(member for row in seat.rows for member in row) == sorted(peers)
    sizes = {len(row) for row in seat.rows}
    assert max(sizes) - min(sizes) <= 1
    assert len(seat.rows) == min(MAX_ROWS, -(-count // most))
    assert seat.me in seat.mates


def test_rows__are_the_same_for_everybody_who_sees_the_same_peers() -> None:
    peers = MANY[:7]
    seats = [take_seat(SEED, 1, me, peers, 3) for me in peers]
    assert {seat.rows for seat in seats} == {seats[0].rows}
    assert sorted(map(len, seats[0].rows)) == [2, 2, 3]
    assert all(seat.me in seat.rows[seat.row] for seat in seats)


def test_rows__are_others_for_another_seed_or_stage() -> None:
    drawn = {take_seat(seed, stage, MANY[0], MANY[:40], 8).rows for seed in (SEED, b"other") for stage in (0, 1)}
    assert len(drawn) == 4


def test_one_row__holds_as_many_as_a_roster_takes() -> None:
    assert len(take_seat(SEED, 0, MANY[0], MANY[:MAX_MEMBERS], MAX_MEMBERS).rows) == 1


def test_column__is_one_of_each_other_row_and_its_members_are_spread() -> None:
    """Of three rows of three, each member is asked first by one member of each other row."""
    peers = MANY[:9]
    asked: list[PeerId] = []
    for me in peers:
        seat = take_seat(SEED, 1, me, peers, 3)
        column = seat.column()
        assert [next(row for row, of in enumerate(seat.rows) if one in of) for one in column] == [
            row for row in range(3) if row != seat.row
        ]
        for row in range(3):
            if row != seat.row:
                assert sorted(seat.sources(row)) == sorted(seat.rows[row])
        asked += column
    assert sorted(asked) == sorted([*peers, *peers])


@pytest.mark.parametrize("most", [0, MAX_MEMBERS + 1])
def test_seat__refused_for_rows_out_of_bounds(most: int) -> None:
    with pytest.raises(LocalProtocolError):
        take_seat(SEED, 0, MANY[0], (), most)


@settings(max_examples=8, deadline=None)
@given(st.integers(4, 120), st.integers(3, MAX_MEMBERS), st.data())
def test_two_rounds__give_the_exact_weighted_mean_of_all(count: int, most: int, data: st.DataObject) -> None:
    """Values of one size, most of one sign: nobody is clipped or left out. The mean of all, rounded twice."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    signs = {one: rng.choice([-1.0, 1.0], 400, p=[0.2, 0.8]).astype(np.float32) for one in MANY[:count]}
    samples = {one: int(rng.integers(2, 2 * MAX_BOAST)) for one in signs}  # within the bound of any row
    seat = take_seat(SEED, 1, MANY[0], MANY[:count], most)
    rows = [
        {0: reduce_block([EXACT.encode(signs[m]) for m in row], [samples[m] for m in row], EXACT, 400).encoded}
        for row in seat.rows
    ]
    weights = [sum(counted_samples([samples[m] for m in row])) for row in seat.rows]
    total = sum(samples.values())
    expected = [
        float(sum(Fraction(samples[m]) * int(s) for m, s in zip(signs, column, strict=True)) / total)
        for column in np.array(list(signs.values())).T
    ]
    np.testing.assert_allclose(combine_rows(rows, weights, EXACT, 400), expected, rtol=0, atol=2.0**-23)


def test_combined_rows__are_the_weighted_mean_in_the_order_of_rows() -> None:
    """Three blocks, the last of them short; a block that a row lost counts for nothing, one that all lost is zero."""
    values = [vector(40_000, seed) for seed in range(3)]
    size = EXACT.block_bytes
    rows = [{i: EXACT.encode(of)[i * size : (i + 1) * size] for i in range(3)} for of in values]
    whole = combine_rows(rows, [1, 2, 3], EXACT, 40_000)
    direct = (values[0] + 2 * values[1].astype(np.float64) + 3 * values[2].astype(np.float64)) / 6
    np.testing.assert_array_equal(whole, direct.astype(np.float32))
    del rows[0][1], rows[0][2], rows[1][2], rows[2][2]
    lossy = combine_rows(rows, [1, 2, 3], EXACT, 40_000)
    np.testing.assert_array_equal(lossy[:16384], whole[:16384])
    two = (2 * values[1].astype(np.float64) + 3 * values[2].astype(np.float64)) / 5
    np.testing.assert_array_equal(lossy[16384:32768], two[16384:32768].astype(np.float32))
    assert not lossy[32768:].any()


def test_row__that_boasts_counts_for_four_times_the_median() -> None:
    """As members do: two thirds of a row may claim what they like."""
    rows = [{0: EXACT.encode(vector(64, seed))} for seed in range(3)]
    assert (
        combine_rows(rows, [10, 20, 10_000], EXACT, 64).tobytes()
        == combine_rows(rows, [10, 20, 80], EXACT, 64).tobytes()
    )


def test_block_that_does_not_decode__counts_for_nothing() -> None:
    """Two thirds of a row may sign what they like; nobody else's epoch ends for that."""
    good, bad = EXACT.encode(vector(64)), np.full(64, np.nan, dtype="<f4").tobytes()
    np.testing.assert_array_equal(combine_rows([{0: good}, {0: bad}], [1, 5], EXACT, 64), vector(64))
