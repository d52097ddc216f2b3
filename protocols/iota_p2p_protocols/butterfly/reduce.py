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

from iota_p2p_protocols.butterfly.codec import Codec, pairwise_sum
from iota_p2p_protocols.butterfly.codecs import result_codec
from iota_p2p_protocols.errors import LocalProtocolError, MalformedError

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
    encoded: Sequence[bytes | None], samples: Sequence[int], codec: Codec, num_values: int
) -> ReducedBlock:
    """Average one block: each scaled to at most the lower median of all norms, without those gone astray.

    Args:
        encoded: each member's block in the roster's order; None for those reported as missing.
        samples: each member's microbatches, missing or not, so that a weight does not depend on who is missing.
        codec: of the contributions.
        num_values: V.

    Returns:
        Zeros where nothing came from anybody with samples: the weights stay as they are.
    """
    weights = counted_samples(samples)
    blocks, refused = _decode_all(encoded, weights, codec, num_values)
    norms = {member: sqrt(_dot(values, values)) for member, values in blocks.items()}
    limit = _lower_median(norms.values()) if norms else 0.0
    scales = {member: limit / norm if norm > limit else 1.0 for member, norm in norms.items()}
    astray = _astray(blocks, norms, scales, num_values)
    for member in astray:
        del blocks[member]
    mean = _weighted_mean(blocks, weights, scales, num_values)
    return ReducedBlock(
        encoded=result_codec(codec).encode(mean.astype(np.float32)),
        refused=refused,
        clipped=tuple(member for member, norm in norms.items() if norm > limit),
        astray=astray,
    )


def combine_block(encoded: Sequence[bytes | None], samples: Sequence[int], codec: Codec, num_values: int) -> bytes:
    """Average one block of results that certificates vouch for: the second round of a grid, without any clipping.

    Args:
        encoded: each row's result in the order of rows; None where the row lost it.
        samples: what each row counted in all.
        codec: of the rows' results.
        num_values: V.
    """
    blocks, refused = _decode_all(encoded, samples, codec, num_values)
    if refused:
        raise LocalProtocolError(f"expected results that were checked, got undecodable ones of rows {refused}")
    mean = _weighted_mean(blocks, samples, dict.fromkeys(blocks, 1.0), num_values)
    return codec.encode(mean.astype(np.float32))


def counted_samples(samples: Sequence[int]) -> tuple[int, ...]:
    """Return for how many samples each member counts: at most MAX_BOAST times the lower median."""
    limit = MAX_BOAST * _lower_median(samples)
    return tuple(min(count, limit) for count in samples)


def _decode_all(
    encoded: Sequence[bytes | None], weights: Sequence[int], codec: Codec, num_values: int
) -> tuple[dict[int, Values], tuple[int, ...]]:
    """Return the values of the members that count, in order, and the members whose block does not decode."""
    blocks: dict[int, Values] = {}
    refused = []
    for member, (block, weight) in enumerate(zip(encoded, weights, strict=True)):
        if block is None:
            continue
        try:
            values = codec.decode_block(block, num_values)
        except MalformedError:
            refused.append(member)
            continue
        if weight:
            blocks[member] = values.astype(np.float64)
    return blocks, tuple(refused)


def _astray(
    blocks: Mapping[int, Values], norms: Mapping[int, float], scales: Mapping[int, float], num_values: int
) -> tuple[int, ...]:
    """Return the members whose block does not point where the others' do, if those have a clear direction.

    Compares, every member counting alike, the cosine of each scaled block and the sum of all others'. Honest ones were
    measured to stay above .9 of the median, and above .6 with a third of the work.
    """
    if len(blocks) < MIN_COMPARED:
        return ()
    total = _weighted_sum(blocks, dict.fromkeys(blocks, 1), scales, num_values)
    square = _dot(total, total)
    cosines = {}
    for member, values in blocks.items():
        length = norms[member] * scales[member]
        along = _dot(values, total) * scales[member]
        others_square = square - 2 * along + length * length
        if length > 0 and others_square > square * CANCELLED:
            cosines[member] = (along - length * length) / (length * sqrt(others_square))
        else:
            cosines[member] = 0.0
    median = _lower_median(cosines.values())
    if median <= CLEAR_COSINE:
        return ()
    return tuple(member for member, cosine in cosines.items() if cosine < median * ASTRAY)


def _dot(one: Values, other: Values) -> float:
    return float(pairwise_sum(np.multiply(one, other)))


def _weighted_sum(
    blocks: Mapping[int, Values],
    weights: Mapping[int, int] | Sequence[int],
    scales: Mapping[int, float],
    num_values: int,
) -> Values:
    total = np.zeros(num_values, dtype=np.float64)
    for member, values in blocks.items():
        np.add(total, np.multiply(values, float(weights[member]) * scales[member]), out=total)
    return total


def _weighted_mean(
    blocks: dict[int, Values], weights: Sequence[int], scales: dict[int, float], num_values: int
) -> Values:
    total = _weighted_sum(blocks, weights, scales, num_values)
    weight = sum(weights[member] for member in blocks)
    return np.divide(total, float(weight)) if weight else total


def _lower_median(numbers: Iterable[Number]) -> Number:
    ordered = sorted(numbers)
    return ordered[(len(ordered) - 1) // 2]
