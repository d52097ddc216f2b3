"""Reduce: from the members' blocks to their mean, the same bytes on every machine.

A block's result follows from the members' committed blocks of the same number, their samples, the codec, and nothing
else: whoever holds those can tell what both reducers must have said (spec: reduce.md). Therefore all sums are float64,
taken in the roster's order or in `pairwise_sum`'s, and every product and every sum is a numpy operation of its own,
which no compiler fuses into one rounding.

Shapes: N, members; V, values of a block.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, Codec, Encoded, Vector, aligned, pairwise_sum
from iota_p2p_protocols.butterfly.codecs import result_codec
from iota_p2p_protocols.errors import MalformedError

Values = npt.NDArray[np.float64]
Number = TypeVar("Number", int, float)

# Nobody's samples count for more than this many times the median: until receipts bear them out they are claims.
MAX_BOAST = 4
# Of two nobody can tell who went astray.
MIN_COMPARED = 3
# With less in common blocks are noise to each other, and say nothing of their makers; early in training it is .6 to .9.
CLEAR_COSINE = 0.2
ASTRAY = 0.5  # of the median cosine
CANCELLED = 2.0**-40  # what is left of a sum whose parts cancel is rounding
# Sums of so many products are folded for all members at once: below that numpy's calls cost more than the adding.
_FOLDED_TOGETHER = 512
_TOTAL = -1  # among members


@dataclass(frozen=True, slots=True)
class ReducedBlock:
    """The result of a block.

    Attributes:
        encoded: the mean in the codec of results.
        refused: members whose block does not decode: that block shows it to anybody (`contribution_fault`).
        clipped: members whose block was scaled down.
        astray: members whose block was left out because it does not point where the others' do.
    """

    encoded: bytes
    refused: tuple[int, ...]
    clipped: tuple[int, ...]
    astray: tuple[int, ...]


def reduce_block(
    encoded: Sequence[Encoded | None], samples: Sequence[int], codec: Codec, num_values: int
) -> ReducedBlock:
    """Average one block: `Reducer` for whoever has but one."""
    return Reducer(counted_samples(samples), codec, num_values).reduce(encoded, num_values)


def counted_samples(samples: Sequence[int]) -> tuple[int, ...]:
    """Return for how many samples each member counts: at most MAX_BOAST times the lower median."""
    limit = MAX_BOAST * _lower_median(samples)
    return tuple(min(count, limit) for count in samples)


class Reducer:
    """Averages blocks of one merge, one after the other, in buffers of its own; one thread at a time uses it."""

    def __init__(self, weights: Sequence[int], codec: Codec, max_values: int = BLOCK_VALUES) -> None:
        """Make room.

        Args:
            weights: for how many samples each member counts (`counted_samples`), missing or not, so that a weight
                does not depend on who is missing.
            codec: of the members' blocks.
            max_values: of the longest block.
        """
        self._weights = weights
        self._codec = codec
        width = _power_of_two(max_values)
        self._decoded_V = aligned(1, width, np.float32)[0]
        self._rows_NV = aligned(len(weights), width, np.float64)
        self._total_V, self._products_V = aligned(2, width, np.float64)
        self._halves = _halves(self._products_V)

    def reduce(self, encoded: Sequence[Encoded | None], num_values: int) -> ReducedBlock:
        """Average one block: each scaled to at most the lower median of all norms, without those gone astray.

        Args:
            encoded: each member's block in the roster's order; None for those reported as missing.
            num_values: V.

        Returns:
            Zeros where nothing came from anybody with samples: the weights stay as they are.
        """
        blocks, refused = self._decode_all(encoded, num_values)
        norms = {member: sqrt(square) for member, square in self._dots(blocks, None, num_values).items()}
        limit = _lower_median(norms.values()) if norms else 0.0
        scales = {member: limit / norm if norm > limit else 1.0 for member, norm in norms.items()}
        astray = self._astray(blocks, norms, scales, num_values)
        for member in astray:
            del blocks[member]
        return ReducedBlock(
            encoded=result_codec(self._codec).encode(self._weighted_mean(blocks, scales, num_values)),
            refused=refused,
            clipped=tuple(member for member, norm in norms.items() if norm > limit),
            astray=astray,
        )

    def combine(self, encoded: Sequence[Encoded | None], num_values: int) -> Vector:
        """Average one block of results, without any clipping; see `grid.combine_rows`.

        One that does not decode counts as None, for everybody alike: two thirds of its row have certified it so.
        """
        blocks, _ = self._decode_all(encoded, num_values)
        return self._weighted_mean(blocks, dict.fromkeys(blocks, 1.0), num_values)

    def _decode_all(
        self, encoded: Sequence[Encoded | None], num_values: int
    ) -> tuple[dict[int, Values], tuple[int, ...]]:
        """Return the values of the members that count, in order, and the members whose block does not decode."""
        blocks: dict[int, Values] = {}
        refused = []
        decoded_V = self._decoded_V[:num_values]
        for member, (block, weight) in enumerate(zip(encoded, self._weights, strict=True)):
            if block is None:
                continue
            try:
                self._codec.decode_block_into(decoded_V, block)
            except MalformedError:
                refused.append(member)
                continue
            if weight:
                blocks[member] = self._rows_NV[member, :num_values]
                blocks[member][:] = decoded_V
        return blocks, tuple(refused)

    def _astray(
        self, blocks: Mapping[int, Values], norms: Mapping[int, float], scales: Mapping[int, float], num_values: int
    ) -> tuple[int, ...]:
        """Return the members whose block does not point where the others' do, if those have a clear direction.

        Compares, every member counting alike, the cosine of each scaled block and the sum of all others'. Honest ones
        were measured to stay above .9 of the median, and above .6 with a third of the work.
        """
        if len(blocks) < MIN_COMPARED:
            return ()
        total = self._weighted_sum(blocks, scales, num_values)
        dots = self._dots({**blocks, _TOTAL: total}, total, num_values)
        square = dots.pop(_TOTAL)
        cosines = {}
        for member, dot in dots.items():
            length = norms[member] * scales[member]
            along = dot * scales[member]
            others_square = square - 2 * along + length * length
            if length > 0 and others_square > square * CANCELLED:
                cosines[member] = (along - length * length) / (length * sqrt(others_square))
            else:
                cosines[member] = 0.0
        median = _lower_median(cosines.values())
        if median <= CLEAR_COSINE:
            return ()
        return tuple(member for member, cosine in cosines.items() if cosine < median * ASTRAY)

    def _dots(self, blocks: Mapping[int, Values], other: Values | None, num_values: int) -> dict[int, float]:
        """Return the sum of each block's products with another one, or with itself, by `pairwise_sum`'s halves."""
        products = self._products_V[:num_values]
        width = _power_of_two(num_values)
        halves = [pair for pair in self._halves if len(pair[0]) < width]
        self._products_V[num_values:width] = 0
        folded = np.empty((len(blocks), min(width, _FOLDED_TOGETHER)), dtype=np.float64)
        for row, values in zip(folded, blocks.values(), strict=True):
            np.multiply(values, values if other is None else other, out=products)
            for first, second in halves:
                np.add(first, second, out=first)
            row[:] = self._products_V[: len(row)]
        return dict(zip(blocks, pairwise_sum(folded).tolist(), strict=True))

    def _weighted_sum(self, blocks: Mapping[int, Values], factors: Mapping[int, float], num_values: int) -> Values:
        total: Values = self._total_V[:num_values]
        products = self._products_V[:num_values]
        total[:] = 0
        for member, values in blocks.items():
            factor = factors[member]
            np.add(total, values if factor == 1 else np.multiply(values, factor, out=products), out=total)
        return total

    def _weighted_mean(self, blocks: Mapping[int, Values], scales: Mapping[int, float], num_values: int) -> Vector:
        factors = {member: float(self._weights[member]) * scales[member] for member in blocks}
        total = self._weighted_sum(blocks, factors, num_values)
        weight = sum(self._weights[member] for member in blocks)
        if weight:
            np.divide(total, float(weight), out=total)
        return total.astype(np.float32)


def _halves(products: Values) -> list[tuple[Values, Values]]:
    """Return an array's halves, those of the first half, and so on: cutting them anew takes as long as adding them."""
    halves = []
    width = len(products) // 2
    while width >= _FOLDED_TOGETHER:
        halves.append((products[:width], products[width : 2 * width]))
        width //= 2
    return halves


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()


def _lower_median(numbers: Iterable[Number]) -> Number:
    ordered = sorted(numbers)
    return ordered[(len(ordered) - 1) // 2]
