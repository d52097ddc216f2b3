"""Codecs that keep every value: float32 as it is, bfloat16, and int8 with a scale for each few values.

All numbers are little-endian. Measured sizes, errors and speeds: docs/butterfly.md.
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from iota_p2p_protocols.butterfly.codec import MAX_MAGNITUDE, MIN_MAGNITUDE, Codec, Raw, Vector

_FLOAT32 = np.dtype("<f4")
_HALF_BITS = np.uint32(16)  # a bfloat16 is the upper half of a float32
_JUST_BELOW_HALF = np.uint32(0x7FFF)

# A scale of four bytes for 256 values adds 1.6 % to the bytes; docs/decisions/0202 compares it with 64 and 1,024.
INT8_UNIT = 256
_SCALE_BYTES = 4
_LEVELS = np.float32(127)
_BOUNDED_SCALE = np.float32(MAX_MAGNITUDE / 128)  # the largest of anybody's codes


class Float32(Codec):
    """The values themselves: loses nothing."""

    name: ClassVar[str] = "float32"
    unit: ClassVar[int] = 1
    unit_bytes: ClassVar[int] = 4

    def _encode(self, rows: Vector, into: Raw) -> None:
        into.view(_FLOAT32)[:] = rows

    def _decode(self, raw: Raw, into: Vector) -> None:
        into[:] = raw.view(_FLOAT32)


class BFloat16(Codec):
    """The upper half of each float32, rounded to nearest, ties to even: 2^-9 of relative error at most."""

    name: ClassVar[str] = "bfloat16"
    unit: ClassVar[int] = 1
    unit_bytes: ClassVar[int] = 2

    def _encode(self, rows: Vector, into: Raw) -> None:
        bits = rows.view(np.uint32)
        rounded = np.right_shift(bits, _HALF_BITS)
        np.bitwise_and(rounded, np.uint32(1), out=rounded)  # 1 where the upper half is odd
        np.add(rounded, _JUST_BELOW_HALF, out=rounded)
        np.add(rounded, bits, out=rounded)
        np.right_shift(rounded, _HALF_BITS, out=rounded)
        into.view("<u2")[:] = rounded

    def _decode(self, raw: Raw, into: Vector) -> None:
        bits = into.view(np.uint32)
        bits[:] = raw.view("<u2")
        np.left_shift(bits, _HALF_BITS, out=bits)


class Int8(Codec):
    """127 levels on either side of zero, up to the largest magnitude among INT8_UNIT values.

    A block is the scales of its units (float32: largest magnitude / 127), then one signed byte for each value:
    value / scale rounded to nearest, ties to even. The error is at most half a scale. A unit whose magnitudes are all
    below MIN_MAGNITUDE is zero.
    """

    name: ClassVar[str] = "int8"
    unit: ClassVar[int] = INT8_UNIT
    unit_bytes: ClassVar[int] = _SCALE_BYTES + INT8_UNIT

    def _encode(self, rows: Vector, into: Raw) -> None:
        units = rows.reshape(-1, self.unit)
        # Magnitudes are ordered as their bits are, and numpy finds the largest of integers faster.
        peaks = np.abs(units).view(np.uint32).max(axis=1).view(np.float32)
        peaks[peaks < MIN_MAGNITUDE] = 0
        scales = np.divide(peaks, _LEVELS)
        inverse = np.divide(np.float32(1), scales, where=scales > 0, out=np.zeros_like(scales))
        codes = np.multiply(units, inverse[:, None])
        np.rint(codes, out=codes)
        scale_bytes = rows.shape[1] // self.unit * _SCALE_BYTES
        into[:, :scale_bytes] = scales.astype(_FLOAT32).view(np.uint8).reshape(len(rows), -1)
        np.copyto(into[:, scale_bytes:].view(np.int8), codes.reshape(rows.shape), casting="unsafe")

    def _decode(self, raw: Raw, into: Vector) -> None:
        units = into.reshape(len(into), -1, self.unit)
        scales, codes = self._tables(raw)
        units[:] = codes.reshape(units.shape)
        np.multiply(units, scales[:, :, None], out=units)

    def _are_bounded(self, raw: Raw) -> bool:
        return bool((np.abs(self._tables(raw)[0]) <= _BOUNDED_SCALE).all())  # not true of NaN

    def _tables(self, raw: Raw) -> tuple[Vector, npt.NDArray[np.int8]]:
        scale_bytes = raw.shape[1] // self.unit_bytes * _SCALE_BYTES
        return raw[:, :scale_bytes].view(_FLOAT32), raw[:, scale_bytes:].view(np.int8)
