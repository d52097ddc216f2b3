"""Quick sums of products: near the exact ones, and never the reason for another result."""

from math import sqrt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES
from iota_p2p_protocols.butterfly.direction import astray
from iota_p2p_protocols.butterfly.row_products import QUICK_ERROR, RowProducts, Rows, Values

LENGTHS = st.sampled_from([1, 2, 300, 8_192, 8_193, BLOCK_VALUES])


class Exact(RowProducts):
    """Takes every sum by halves."""

    def quick(self, rows_MV: Rows, other_V: Values | None = None) -> list[float]:
        return self.exact(rows_MV, other_V)


class Off(RowProducts):
    """Is off by half of what a quick sum may be, to one side: more than any machine's."""

    side = 1.0

    def quick(self, rows_MV: Rows, other_V: Values | None = None) -> list[float]:
        squares = self.exact(rows_MV)
        others = squares if other_V is None else self.exact(other_V[None]) * len(squares)
        bounds = [QUICK_ERROR / 2 * sqrt(square * other) for square, other in zip(squares, others, strict=True)]
        sums = self.exact(rows_MV, other_V)
        return [exact + self.side * bound for exact, bound in zip(sums, bounds, strict=True)]


class OffBelow(Off):
    """Likewise, to the other side."""

    side = -1.0


class Blind(Off):
    """Takes no sum by halves when asked to."""

    def exact(self, rows_MV: Rows, other_V: Values | None = None) -> list[float]:
        return Off().quick(rows_MV, other_V) if other_V is not None else super().exact(rows_MV)


def rows(count: int, length: int, seed: int, common: float) -> Rows:
    """Return rows with something in common, as float32 has them, of sizes that differ by a factor of up to 1,000."""
    draw = np.random.default_rng(seed)
    sizes = 10.0 ** draw.uniform(-3, 0, (count, 1))
    drawn = (draw.standard_normal((count, length)) + common * draw.standard_normal(length)) * sizes
    return drawn.astype(np.float32).astype(np.float64)


@given(length=LENGTHS, seed=st.integers(0, 99), common=st.floats(0, 3))
def test_quick_sum__is_within_its_error_of_the_exact_one(length: int, seed: int, common: float) -> None:
    products, some = RowProducts(), rows(3, length, seed, common)
    squares = products.exact(some)
    np.testing.assert_allclose(products.quick(some), squares, rtol=QUICK_ERROR)
    bounds = [QUICK_ERROR * sqrt(square * squares[0]) for square in squares]
    for quick, exact, bound in zip(products.quick(some, some[0]), products.exact(some, some[0]), bounds, strict=True):
        assert abs(quick - exact) <= bound


@given(length=LENGTHS, seed=st.integers(0, 99))
def test_norm__is_the_exact_one_rounded(length: int, seed: int) -> None:
    some = rows(4, length, seed, 1.0)
    expected = [float(np.float32(sqrt(square))) for square in RowProducts().exact(some)]
    assert RowProducts().norms(some) == expected


def test_norm__is_right_where_a_quick_sum_cannot_tell() -> None:
    """Rows whose norm lies as near as float64 can to the middle of two float32: each side's error misleads of some."""
    misled = set()
    for seed in range(10):
        values = np.random.default_rng(seed).standard_normal((1, BLOCK_VALUES))
        values *= (1 + 2.0**-24) / sqrt(RowProducts().exact(values)[0])
        norms = Exact().norms(values)
        for products in (RowProducts(), Off(), OffBelow()):
            assert products.norms(values) == norms
            if float(np.float32(sqrt(products.quick(values)[0]))) != norms[0]:
                misled.add(type(products))
    assert misled >= {Off, OffBelow}


@given(
    members=st.integers(3, 9),
    length=LENGTHS,
    seed=st.integers(0, 999),
    common=st.sampled_from([0.0, 0.05, 0.5, 1.0, 3.0]),
    twist=st.sampled_from([1.0, 0.0, -1.0, 1e-9, 1e4]),
)
def test_direction__is_told_as_exact_sums_tell_it(
    members: int, length: int, seed: int, common: float, twist: float
) -> None:
    """One may reverse, be zero, or be far longer than all others; others have much, little or nothing in common."""
    some = rows(members, length, seed, common)
    some[0] *= twist
    norms = RowProducts().norms(some)
    limit = sorted(norms)[(members - 1) // 2]
    scales = [limit / norm if norm > limit else 1.0 for norm in norms]
    total = np.sum(some * np.array(scales)[:, None], axis=0)
    assert astray(RowProducts(), some, total, norms, scales) == astray(Exact(), some, total, norms, scales)


def test_direction__is_told_exactly_where_a_cosine_is_at_the_limit() -> None:
    """What all but one have in common grows, by steps of rounding's size, to where the other one is left out."""
    misled = 0
    for seed in range(3):
        way, *noise = np.random.default_rng(seed).standard_normal((6, BLOCK_VALUES))

        def told(products: RowProducts, common: float, way: Values = way, noise: list[Values] = noise) -> list[int]:
            some = 3 * np.stack(noise) + common * way
            some[0] -= 2 * common * way
            return astray(products, some, some.sum(axis=0), Exact().norms(some), [1.0] * 5)

        kept, left = 0.0, 30.0
        for _ in range(52):
            middle = (kept + left) / 2
            kept, left = (kept, middle) if told(Exact(), middle) else (middle, left)
        for common in left + np.arange(-20, 20) * 2.0**-50:
            expected = told(Exact(), common)
            assert all(told(products, common) == expected for products in (RowProducts(), Off(), OffBelow()))
            misled += told(Blind(), common) != expected
    assert misled
