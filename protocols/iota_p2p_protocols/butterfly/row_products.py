"""Sums of products of rows: the same bits on every machine, or quickly and within a known error.

numpy's own sums of products take a fifth of the time, but in an order that differs between machines. Where a number
is rounded or compared afterwards, the order rarely matters: `norms` and `direction` take the quick sum, and the exact
one only where the error could change what comes of it. What comes of it is therefore always what exact sums give.

Shapes: M, rows; V, values of a row.
"""

from math import sqrt

import numpy as np
import numpy.typing as npt

from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, aligned, pairwise_sum

Rows = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]

# A sum of n products is off by at most n 2^-53 times the product of the rows' norms, in whatever order it is taken
# (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). Two such sums of BLOCK_VALUES differ by 2^-38.
QUICK_ERROR = 2.0**-36
# BLAS starts threads of its own, beside training's, for the product of longer rows.
_QUICK_VALUES = 8_192
# Sums of so many products are folded for all rows at once: below that numpy's calls cost more than the adding.
_FOLDED_TOGETHER = 512


class RowProducts:
    """Sums of products of rows of up to `max_values` values, in a buffer of its own; one thread at a time uses it."""

    def __init__(self, max_values: int = BLOCK_VALUES) -> None:
        """Make room."""
        self._products_V = aligned(1, _power_of_two(max_values), np.float64)[0]
        self._halves = _halves(self._products_V)

    def exact(self, rows_MV: Rows, other_V: Values | None = None) -> list[float]:
        """Return the sum of each row's products with another row, or with itself, by `pairwise_sum`'s halves."""
        num_values = rows_MV.shape[1]
        products_V, width = self._products_V[:num_values], _power_of_two(num_values)
        halves = [pair for pair in self._halves if len(pair[0]) < width]
        self._products_V[num_values:width] = 0
        folded = np.empty((len(rows_MV), min(width, _FOLDED_TOGETHER)), dtype=np.float64)
        for sums, row_V in zip(folded, rows_MV, strict=True):
            np.multiply(row_V, row_V if other_V is None else other_V, out=products_V)
            for first, second in halves:
                np.add(first, second, out=first)
            sums[:] = self._products_V[: len(sums)]
        return list(pairwise_sum(folded).tolist())

    def quick(self, rows_MV: Rows, other_V: Values | None = None) -> list[float]:
        """Return the same but for an error of QUICK_ERROR times both rows' norms."""
        sums = np.zeros(len(rows_MV))
        for first in range(0, rows_MV.shape[1], _QUICK_VALUES):
            part_MV = rows_MV[:, first : first + _QUICK_VALUES]
            sums += np.vecdot(part_MV, part_MV if other_V is None else other_V[first : first + _QUICK_VALUES])
        return list(sums.tolist())

    def norms(self, rows_MV: Rows) -> list[float]:
        """Return each row's norm: the root of its exact sum of squares, rounded to float32."""
        squares = np.array(self.quick(rows_MV))
        norms, highest = (np.sqrt(squares * (1 + error)).astype(np.float32) for error in (-QUICK_ERROR, QUICK_ERROR))
        for row in np.flatnonzero(norms != highest):
            norms[row] = np.float32(sqrt(self.exact(rows_MV[row : row + 1])[0]))
        return list(norms.tolist())


def _halves(products_V: Values) -> list[tuple[Values, Values]]:
    """Return an array's halves, those of the first half, and so on: cutting them anew takes as long as adding them."""
    halves = []
    width = len(products_V) // 2
    while width >= _FOLDED_TOGETHER:
        halves.append((products_V[:width], products_V[width : 2 * width]))
        width //= 2
    return halves


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()
