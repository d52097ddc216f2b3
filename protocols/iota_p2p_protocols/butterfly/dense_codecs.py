"""Codecs that keep every value: float32 as it is, bfloat16, and int8 with a scale for each few values.

All numbers are little-endian. Measured sizes, errors and speeds: docs/butterfly.md.
"""

from typing import ClassVar

import numpy as np

from iota_p2p_protocols.butterfly.codec import MIN_MAGNITUDE, Codec, Raw, Vector

_FLOAT32 = np.dtype("<f4")
_HALF_BITS = np.uint32(16)  # a bfloat16 is the upper half of a float32
_JUST_BELOW_HALF = np.uint32(0x7FFF)

# A scale of four bytes for 256 values adds 1.6 % to the bytes; docs/decisions/0202 compares it with 64 and 1,024.
INT8_UNIT = 256
_SCALE_BYTES = 4
_LEVELS = np.float32(127)


class Float32(Codec):
    """The values themselves: loses nothing."""

    name: ClassVar[str] = "float32"
    unit: ClassVar[int] = 1
    unit_bytes: ClassVar[int] = 4

    def _encode(self, rows: Vector, into: Raw) -> None:
        into.view(_FLOAT32)[:] = rows

    def _decode(self, raw: Raw) -> Vector:
        return raw.view(_FLOAT32).astype(np.float32)


class BFloat16(Codec):
    """The upper half of each float32, rounded to nearest, ties to even: 2^-9 of relative error at most."""

    name: ClassVar[str] = "bfloat16"
    unit: ClassVar[int] = 1
    unit_bytes: ClassVar[int] = 2

    def _encode(self, rows: Vector, into: Raw) -> None:
        bits = rows.view(np.uint32)
        odd = (bits >> _HALF_BITS) & np.uint32(1)
        into.view("<u2")[:] = (bits + _JUST_BELOW_HALF + odd) >> _HALF_BITS

    def _decode(self, raw: Raw) -> Vector:
        return (raw.view("<u2").astype(np.uint32) << _HALF_BITS).view(np.float32)


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
        units = rows.reshape(len(rows), -1, self.unit)
        num_units = units.shape[1]
        peaks = np.maximum(units.max(axis=2), -units.min(axis=2))
        peaks[peaks < MIN_MAGNITUDE] = 0
        scales = np.divide(peaks, _LEVELS)
        inverse = np.divide(np.float32(1), scales, where=scales > 0, out=np.zeros_like(scales))
        codes = np.multiply(units, inverse[:, :, None])
        np.rint(codes, out=codes)
        into[:, : num_units * _SCALE_BYTES] = scales.astype(_FLOAT32).view(np.uint8)
        into[:, num_units * _SCALE_BYTES :] = codes.astype(np.int8).view(np.uint8).reshape(len(rows), -1)

    def _decode(self, raw: Raw) -> Vector:
        num_units = len(raw) // self.unit_bytes
        scales = raw[: num_units * _SCALE_BYTES].view(_FLOAT32).astype(np.float32)
        codes = raw[num_units * _SCALE_BYTES :].view(np.int8).reshape(num_units, self.unit)
        values = codes.astype(np.float32)
        np.multiply(values, scales[:, None], out=values)
        return values.reshape(-1)
