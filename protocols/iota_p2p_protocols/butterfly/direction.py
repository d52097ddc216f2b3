"""Direction: whose block points where the others' do (spec: reduce.md, 5).

Every member counts alike: samples are claims. Honest members' cosines were measured to stay above .9 of the median,
and above .6 with a third of the work.

Shapes: M, blocks; V, values of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

from iota_p2p_protocols.butterfly.row_products import RowProducts, Rows, Values

Number = TypeVar("Number", int, float)

# Of two nobody can tell who went astray.
MIN_COMPARED = 3
# With less in common blocks are noise to each other, and say nothing of their makers; early in training it is .6 to .9.
CLEAR_COSINE = 0.2
ASTRAY = 0.5  # of the median cosine
CANCELLED = 2.0**-40  # what is left of a sum whose parts cancel is rounding
# Cosines of quick sums of products are within _COSINE_ERROR of exact ones, as long as no block is longer than
# _QUICK_LENGTH times the sum of all, and the square of what the others come to at least _QUICK_REST of that sum's.
_COSINE_ERROR = 1e-6
_QUICK_LENGTH = 10.0
_QUICK_REST = 1e-3


@dataclass(frozen=True, slots=True)
class _Sums:
    """What cosines follow from.

    Attributes:
        square: of the sum of all scaled blocks.
        along: products of each scaled block with that sum.
        lengths: norms of the scaled blocks.
        rests: squares of the sums of all others'.
    """

    square: float
    along: Sequence[float]
    lengths: Sequence[float]
    rests: Sequence[float]

    @property
    def suffice(self) -> bool:
        """Whether the error of quick sums makes no more than _COSINE_ERROR."""
        return (
            min(self.lengths) > 0
            and max(self.lengths) <= _QUICK_LENGTH * sqrt(self.square)
            and min(self.rests) >= _QUICK_REST * self.square
        )

    def cosines(self) -> list[float]:
        """Return the cosine of each block and the sum of all others'."""
        return [
            (along - length * length) / (length * sqrt(rest)) if length > 0 and rest > self.square * CANCELLED else 0.0
            for along, length, rest in zip(self.along, self.lengths, self.rests, strict=True)
        ]


def astray(
    products: RowProducts, blocks_MV: Rows, total_V: Values, norms: Sequence[float], scales: Sequence[float]
) -> list[int]:
    """Return the rows that do not point where the others do, if those have a clear direction.

    Compares the cosine of each scaled block and the sum of all others'.

    Args:
        products: takes sums.
        blocks_MV: the blocks, at least MIN_COMPARED.
        total_V: sum of the scaled blocks.
        norms: of the blocks.
        scales: what each was scaled by.
    """
    lengths = [norm * scale for norm, scale in zip(norms, scales, strict=True)]
    quick = _sums(products.quick(blocks_MV, total_V), products.quick(total_V[None])[0], lengths, scales)
    if quick.suffice and _is_clear(cosines := quick.cosines()):
        return _far(cosines)
    exact = _sums(products.exact(blocks_MV, total_V), products.exact(total_V[None])[0], lengths, scales)
    return _far(exact.cosines())


def _sums(dots: Sequence[float], square: float, lengths: Sequence[float], scales: Sequence[float]) -> _Sums:
    along = [dot * scale for dot, scale in zip(dots, scales, strict=True)]
    rests = [square - 2 * one + length * length for one, length in zip(along, lengths, strict=True)]
    return _Sums(square, along, lengths, rests)


def _is_clear(cosines: Sequence[float]) -> bool:
    """Return whether _COSINE_ERROR more or less in each cosine makes no difference."""
    median = lower_median(cosines)
    return (
        abs(median - CLEAR_COSINE) > _COSINE_ERROR
        and min(abs(cosine - median * ASTRAY) for cosine in cosines) > 2 * _COSINE_ERROR
    )


def _far(cosines: Sequence[float]) -> list[int]:
    median = lower_median(cosines)
    return [row for row, cosine in enumerate(cosines) if median > CLEAR_COSINE and cosine < median * ASTRAY]


def lower_median(numbers: Sequence[Number]) -> Number:
    """Return the number at place (n - 1) // 2 from below."""
    return sorted(numbers)[(len(numbers) - 1) // 2]
