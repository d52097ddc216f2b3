"""Top-k with two bits a value: the sixteenth part of the values that matters most, nearly forty-fold compressed.

After SparseLoCo (2508.15706): of each unit of values only those of largest magnitude travel, as signs and one of two
sizes; what was left behind is added to the next epoch's pseudo-gradient (`codecs.encode_with_feedback`), without
which training suffers badly. Measured: docs/butterfly.md.
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from iota_p2p_protocols.butterfly.codec import MAX_MAGNITUDE, MIN_MAGNITUDE, Codec, Raw, Vector, pairwise_sum

UNIT = 256  # so that a position is one byte
KEPT = 16  # of a unit: 6.25 %; a quarter of that cost .2 nats/byte more (facts, section 7)
_CODES_PER_BYTE = 4
_SCALE_BYTES = 4
_CODE_BYTES = KEPT // _CODES_PER_BYTE
_FLOAT32 = np.dtype("<f4")
_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)
# Code to multiple of the scale: bit 1 is the sign, bit 0 the size.
_MULTIPLES = np.array([1, 3, -1, -3], dtype=np.float32)
_MULTIPLES_OF_BYTE = _MULTIPLES[np.arange(256, dtype=np.uint8)[:, None] >> _SHIFTS & np.uint8(3)]
_MAX_SCALE = np.float32(MAX_MAGNITUDE / 3)  # three scales must decode


class TopK(Codec):
    """Of each unit the KEPT largest magnitudes, the lower position first among equals.

    A block is three tables, a row for each unit: the scale (float32: half the mean magnitude of what is kept), KEPT
    positions in rising order (one byte each), and their codes (two bits each, the first in the lowest bits): 0 and 1
    are +1 and +3 scales, 2 and 3 are -1 and -3. Three scales stand for magnitudes from the mean on.
    """

    name: ClassVar[str] = "top-k"
    unit: ClassVar[int] = UNIT
    unit_bytes: ClassVar[int] = _SCALE_BYTES + KEPT + _CODE_BYTES

    def _encode(self, rows: Vector, into: Raw) -> None:
        units = rows.reshape(-1, UNIT)
        chosen = np.flatnonzero(_largest(np.abs(units)))
        kept = rows.reshape(-1)[chosen].reshape(-1, KEPT)
        magnitudes = np.abs(kept)
        means = np.divide(pairwise_sum(magnitudes.astype(np.float64)), KEPT).astype(np.float32)
        means[means < MIN_MAGNITUDE] = 0
        codes = (kept < 0) * np.uint8(2) + (magnitudes >= means[:, None])
        quarters = np.left_shift(codes.reshape(-1, _CODES_PER_BYTE), _SHIFTS)
        packed = quarters[:, 0] | quarters[:, 1] | quarters[:, 2] | quarters[:, 3]
        scales = np.minimum(means / np.float32(2), _MAX_SCALE)
        tables = (scales.astype(_FLOAT32).view(np.uint8), chosen.astype(np.uint8), packed)  # UNIT is what a byte holds
        start = 0
        for table in tables:
            flat = table.reshape(len(rows), -1)
            into[:, start : start + flat.shape[1]] = flat
            start += flat.shape[1]

    def _decode(self, raw: Raw, into: Vector) -> None:
        num_units = into.shape[1] // UNIT
        position_start, code_start = _edges(num_units)
        scales = raw[:, :position_start].view(_FLOAT32)[:, :, None]
        starts = np.arange(0, into.shape[1], UNIT, dtype=np.intp)[:, None]
        places = raw[:, position_start:code_start].reshape(len(raw), num_units, KEPT) + starts
        multiples = _MULTIPLES_OF_BYTE[raw[:, code_start:]].reshape(len(raw), num_units, KEPT)
        kept = np.multiply(multiples, scales)
        into[:] = 0
        for values, at, what in zip(into, places, kept, strict=True):
            values[at.reshape(-1)] = what.reshape(-1)  # of a position named twice the last counts

    def _are_bounded(self, raw: Raw) -> bool:
        scales = raw[:, : _edges(raw.shape[1] // self.unit_bytes)[0]].view(_FLOAT32)
        return bool((np.abs(scales) <= _MAX_SCALE).all())  # not true of NaN


def _edges(num_units: int) -> tuple[int, int]:
    """Return where the second and the third table of a block begin."""
    return num_units * _SCALE_BYTES, num_units * (_SCALE_BYTES + KEPT)


def _largest(magnitudes: Vector) -> npt.NDArray[np.bool_]:
    """Return which KEPT of each row are the largest; by comparisons, because partitions break ties at will."""
    bits = magnitudes.view(np.int32)  # in the order of the magnitudes, and numpy partitions integers faster
    threshold = np.partition(bits, UNIT - KEPT, axis=1)[:, UNIT - KEPT, None]
    chosen: npt.NDArray[np.bool_] = bits >= threshold
    if np.count_nonzero(chosen) > KEPT * len(bits):  # some row has equals of its threshold
        above, equal = bits > threshold, bits == threshold
        room = KEPT - above.sum(axis=1, keepdims=True)
        chosen = above | (equal & (equal.cumsum(axis=1) <= room))
    return chosen
