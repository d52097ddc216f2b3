from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.grid import MAX_GRID_MEMBERS, draw_grid
from iota_p2p_protocols.butterfly.reduce import MAX_BOAST, combine_block, reduce_block
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import LocalProtocolError

SEED = digest(b"seed")
EXACT = CODECS["float32"]
SIZES = st.integers(1, 200) | st.sampled_from([MAX_MEMBERS, MAX_MEMBERS + 1, 1000, MAX_GRID_MEMBERS])


@given(SIZES)
def test_grid__has_everybody_in_one_row_and_each_row_once_in_every_column(members: int) -> None:
    grid = draw_grid(SEED, members)
    assert sorted(member for row in grid.rows for member in row) == list(range(members))
    assert max(len(group) for group in (*grid.rows, *grid.columns)) <= MAX_MEMBERS
    for column in grid.columns:
        assert all(member in row for member, row in zip(column, grid.rows, strict=True))
    if len(grid.rows) > 1:
        assert {member for column in grid.columns for member in column} == set(range(members))


def test_one_row__needs_no_second_round() -> None:
    assert draw_grid(SEED, MAX_MEMBERS).columns == ()


def test_grid__depends_on_the_seed() -> None:
    assert draw_grid(SEED, 99) != draw_grid(digest(b"another"), 99)


@pytest.mark.parametrize("members", [0, MAX_GRID_MEMBERS + 1])
def test_grid__refuses_sizes_out_of_bounds(members: int) -> None:
    with pytest.raises(LocalProtocolError):
        draw_grid(SEED, members)


@settings(max_examples=8)
@given(st.integers(MAX_MEMBERS + 1, 120), st.data())
def test_two_rounds__give_everybody_the_exact_weighted_mean(members: int, data: st.DataObject) -> None:
    """Values of one size, most of one sign: nobody is clipped or left out. The mean of all, rounded twice."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    signs = rng.choice([-1.0, 1.0], (members, 400), p=[0.2, 0.8]).astype(np.float32)
    samples = [int(count) for count in rng.integers(2, 2 * MAX_BOAST, members)]  # within the bound of any row
    grid = draw_grid(SEED, members)
    rows = [
        reduce_block([EXACT.encode(signs[m]) for m in row], [samples[m] for m in row], EXACT, 400).encoded
        for row in grid.rows
    ]
    combined = combine_block(rows, [sum(samples[m] for m in row) for row in grid.rows], EXACT, 400)
    expected = [
        float(sum(Fraction(n) * int(s) for n, s in zip(samples, column, strict=True)) / sum(samples))
        for column in signs.T
    ]
    np.testing.assert_allclose(EXACT.decode_block(combined, 400), expected, rtol=0, atol=2.0**-23)
