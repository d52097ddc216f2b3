"""Codes: how a message tensor becomes bytes and comes back, for each of the two directions.

A code is applied to each token by itself: bytes are laid out position by position, and no scale spans two positions,
because a scale shared over time would tell a position about its future. The size of a message follows from its
shape alone, so a receiver knows it before reading. Codes of 4 and 8 bits cannot carry NaN or infinity, raw ones are
checked for them.

Shapes: B sequences, T positions, K numbers per position.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from iota_p2p_crypto.errors import IotaError, MalformedError

Shape = tuple[int, int, int]

# Nothing a healthy stage sends comes near it, and the square of it times any width is finite in float32.
MAX_MAGNITUDE = 2.0**16
# Scale byte b means 2^((b - 192) / 4): from 4e-15 to 55,000 in steps of 19 %. Gradients of long sequences are the
# small end. The quarter powers are written out so that every platform has the same 256 numbers.
_QUARTERS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
_SCALES = torch.tensor([_QUARTERS[b % 4] * 2.0 ** (b // 4 - 48) for b in range(256)], dtype=torch.float32)
_NIBBLE_BITS = 4
_BFLOAT16_BITS = 16
_GRID_LEVELS = {_NIBBLE_BITS: 7, 8: 127}  # symmetric: codes -7..7 and -127..127


class DivergedError(IotaError):
    """Our own numbers are no longer finite: training has diverged, nobody broke a rule."""


class Code(ABC):
    """A fixed map from float32 tensors B x T x K to bytes and back."""

    @abstractmethod
    def bytes_per_token(self, width: int) -> int:
        """Return how many bytes one position of `width` numbers takes."""

    @abstractmethod
    def pack(self, values_BTK: Tensor) -> Tensor:
        """Return uint8, B x T x bytes per token."""

    @abstractmethod
    def unpack(self, bytes_BTX: Tensor, width: int) -> Tensor:
        """Return float32, B x T x width."""

    def encode(self, values_BTK: Tensor) -> bytes:
        """Return the bytes of a message.

        Values beyond MAX_MAGNITUDE are cut off: only a hostile neighbour's input makes them, and must not stop us.

        Raises:
            DivergedError: if a value is not finite.
        """
        values_BTK = values_BTK.detach().float().cpu()
        if not bool(values_BTK.isfinite().all()):
            raise DivergedError("expected finite values to send, got some that are not: training has diverged")
        return self.pack(values_BTK.clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE)).contiguous().numpy().tobytes()

    def decode(self, data: bytes, shape: Shape) -> Tensor:
        """Return the float32 tensor of a message from a peer.

        Raises:
            MalformedError: if the length does not fit the shape, or a value is not finite or beyond MAX_MAGNITUDE.
        """
        num_sequences, length, width = shape
        expected = num_sequences * length * self.bytes_per_token(width)
        if len(data) != expected:
            raise MalformedError("boundary-length", f"expected {expected} bytes for shape {shape}, got {len(data)}")
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return self.unpack(raw.view(num_sequences, length, -1), width)


class RawCode(Code):
    """The numbers themselves, little-endian, in float32 (exact) or bfloat16 (rounded to 8 bits of mantissa)."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def bytes_per_token(self, width: int) -> int:
        """Return 4 or 2 bytes per number."""
        return width * self.dtype.itemsize

    def pack(self, values_BTK: Tensor) -> Tensor:
        """Return the numbers' own bytes."""
        return values_BTK.to(self.dtype).contiguous().view(torch.uint8)

    def unpack(self, bytes_BTX: Tensor, width: int) -> Tensor:
        """Return the numbers; raises MalformedError if one is out of range."""
        del width
        values_BTK = bytes_BTX.contiguous().view(self.dtype).float()
        if not bool((values_BTK.abs() <= MAX_MAGNITUDE).all()):
            raise MalformedError(
                "boundary-range", f"expected values within {MAX_MAGNITUDE:g}, got {values_BTK.abs().max():g}"
            )
        return values_BTK


class GridCode(Code):
    """Numbers in [-1, 1] on a fixed grid of 4 or 8 bits; larger ones are cut off. Error at most half a step."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.levels = _GRID_LEVELS[bits]

    def bytes_per_token(self, width: int) -> int:
        """Return one byte per number, or per two."""
        return -(-width * self.bits // 8)

    def pack(self, values_BTK: Tensor) -> Tensor:
        """Return the nearest grid points."""
        codes = (values_BTK * self.levels).round().clamp(-self.levels, self.levels).to(torch.int8)
        return _pack_nibbles(codes) if self.bits == _NIBBLE_BITS else codes.view(torch.uint8)

    def unpack(self, bytes_BTX: Tensor, width: int) -> Tensor:
        """Return the grid points."""
        codes = _unpack_nibbles(bytes_BTX, width) if self.bits == _NIBBLE_BITS else bytes_BTX.view(torch.int8)
        return codes.float() / self.levels


class ScaledCode(Code):
    """A scale byte per position, then its numbers on a grid of 4 or 8 bits over [-scale, scale].

    The scale is the next of 256 fixed ones at or above the largest number, at most 19 % above it.
    """

    def __init__(self, bits: int) -> None:
        self.grid = GridCode(bits)

    def bytes_per_token(self, width: int) -> int:
        """Return the codes and one byte."""
        return self.grid.bytes_per_token(width) + 1

    def pack(self, values_BTK: Tensor) -> Tensor:
        """Return each position's scale byte and codes."""
        peaks_BT = values_BTK.abs().amax(dim=-1)
        index_BT = torch.searchsorted(_SCALES, peaks_BT).clamp(max=255)
        codes = self.grid.pack(values_BTK / _SCALES[index_BT].unsqueeze(-1))
        return torch.cat((index_BT.to(torch.uint8).unsqueeze(-1), codes), dim=-1)

    def unpack(self, bytes_BTX: Tensor, width: int) -> Tensor:
        """Return each position's codes times its scale."""
        scales_BT1 = _SCALES[bytes_BTX[..., :1].long()]
        return self.grid.unpack(bytes_BTX[..., 1:].contiguous(), width) * scales_BT1


def bottleneck_code(bits: int) -> Code:
    """Return the code for unbounded numbers in that many bits; 16 is bfloat16."""
    return RawCode(torch.bfloat16) if bits == _BFLOAT16_BITS else ScaledCode(bits)


def _pack_nibbles(codes: Tensor) -> Tensor:
    """Return int8 codes in -8..7 two to a byte along the last axis, low half first, padded with zero."""
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    nibbles = (codes & 0xF).view(torch.uint8)
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)


def _unpack_nibbles(data: Tensor, width: int) -> Tensor:
    """Return the first `width` codes, as int8 in -8..7."""
    halves = torch.stack((data & 0xF, data >> 4), dim=-1).flatten(-2)[..., :width]
    return torch.sub(halves.view(torch.int8) ^ 8, 8)  # sign extension of four bits
