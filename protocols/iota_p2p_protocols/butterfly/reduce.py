"""Reduce: from the members' blocks to their mean, the same bytes on every machine.

A block's result follows from the members' committed blocks of the same number, their samples, the codec, and nothing
else: whoever holds those can tell what both reducers must have said (spec: reduce.md). Therefore all sums are float64,
taken in the roster's order or in `pairwise_sum`'s, and every product and every sum is a numpy operation of its own,
which no compiler fuses into one rounding.

Shapes: N, members; M, those that count in a block; V, values of a block; R, blocks decoded together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, Codec, Encoded, Vector, aligned
from iota_p2p_protocols.butterfly.codecs import result_codec
from iota_p2p_protocols.butterfly.direction import MIN_COMPARED, astray, lower_median
from iota_p2p_protocols.butterfly.row_products import RowProducts, Rows, Values

# Nobody's samples count for more than this many times the median: until receipts bear them out they are claims.
MAX_BOAST = 4
# Decoded together, blocks stay in a core's cache, and numpy's calls cost less.
_DECODED_TOGETHER = 8


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
    limit = MAX_BOAST * lower_median(samples)
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
        self._decoded_RV = aligned(min(len(weights), _DECODED_TOGETHER), max_values, np.float32)
        self._rows_NV = aligned(len(weights), max_values, np.float64)
        self._total_V, self._scaled_V = aligned(2, max_values, np.float64)
        self._products = RowProducts(max_values)

    def reduce(self, encoded: Sequence[Encoded | None], num_values: int) -> ReducedBlock:
        """Average one block: each scaled to at most the lower median of all norms, without those gone astray.

        Args:
            encoded: each member's block in the roster's order; None for those reported as missing.
            num_values: V.

        Returns:
            Zeros where nothing came from anybody with samples: the weights stay as they are.
        """
        members, refused = self._decode_all(encoded, num_values)
        rows_MV = self._rows_NV[: len(members), :num_values]
        norms = self._products.norms(rows_MV)
        limit = lower_median(norms) if norms else 0.0
        scales = [limit / norm if norm > limit else 1.0 for norm in norms]
        far = self._astray(rows_MV, norms, scales)
        factors = [
            0.0 if row in far else float(self._weights[member]) * scale
            for row, (member, scale) in enumerate(zip(members, scales, strict=True))
        ]
        weight = sum(self._weights[member] for row, member in enumerate(members) if row not in far)
        return ReducedBlock(
            encoded=result_codec(self._codec).encode(self._mean(rows_MV, factors, weight)),
            refused=refused,
            clipped=tuple(member for member, norm in zip(members, norms, strict=True) if norm > limit),
            astray=tuple(members[row] for row in far),
        )

    def combine(self, encoded: Sequence[Encoded | None], num_values: int) -> Vector:
        """Average one block of results, without any clipping; see `grid.combine_rows`.

        One that does not decode counts as None, for everybody alike: two thirds of its row have certified it so.
        """
        members, _ = self._decode_all(encoded, num_values)
        weights = [self._weights[member] for member in members]
        return self._mean(self._rows_NV[: len(members), :num_values], list(map(float, weights)), sum(weights))

    def _decode_all(
        self, encoded: Sequence[Encoded | None], num_values: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Decode into rows; return the members that count, one for each row, and those whose block does not decode."""
        members: list[int] = []
        refused: list[int] = []
        there = [member for member, block in enumerate(encoded) if block is not None]
        for first in range(0, len(there), _DECODED_TOGETHER):
            together = there[first : first + _DECODED_TOGETHER]
            decoded_RV = self._decoded_RV[: len(together), :num_values]
            blocks = [block for member in together if (block := encoded[member]) is not None]
            wrong = self._codec.decode_blocks_into(decoded_RV, blocks)
            for row, member in enumerate(together):
                if row in wrong:
                    refused.append(member)
                elif self._weights[member]:
                    self._rows_NV[len(members), :num_values] = decoded_RV[row]
                    members.append(member)
        return tuple(members), tuple(refused)

    def _astray(self, rows_MV: Rows, norms: Sequence[float], scales: Sequence[float]) -> Sequence[int]:
        if len(norms) < MIN_COMPARED:
            return ()
        return astray(self._products, rows_MV, self._sum(rows_MV, scales), norms, scales)

    def _sum(self, rows_MV: Rows, factors: Sequence[float]) -> Values:
        """Return the sum of the rows times factors, in order; those with factor 0 are left out."""
        num_values = rows_MV.shape[1]
        total_V: Values = self._total_V[:num_values]
        scaled_V = self._scaled_V[:num_values]
        total_V[:] = 0
        for row_V, factor in zip(rows_MV, factors, strict=True):
            if factor:
                np.add(total_V, row_V if factor == 1 else np.multiply(row_V, factor, out=scaled_V), out=total_V)
        return total_V

    def _mean(self, rows_MV: Rows, factors: Sequence[float], weight: int) -> Vector:
        total_V = self._sum(rows_MV, factors)
        if weight:
            np.divide(total_V, float(weight), out=total_V)
        return total_V.astype(np.float32)
