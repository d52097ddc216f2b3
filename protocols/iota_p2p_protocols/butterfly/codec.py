"""What a codec of pseudo-gradients is: float32 values to bytes and back, block by block.

The unit of everything in a merge is the block of BLOCK_VALUES values (the last one of a vector may be shorter): it is
what contributions commit to, what shards are sets of, what is clipped, reduced and proved (spec: reduce.md). So every
codec encodes each block by itself, to a length that follows from its number of values alone.

A block is encoded alike on every platform: numpy's element-wise float32 operations, maxima and partitions round or
choose in one way only; sums, whose order numpy does not promise, are taken by `pairwise_sum`.

Shapes: W, the values of a vector; V, those of a block; R, blocks worked on at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import ClassVar, TypeVar, final

import numpy as np
import numpy.typing as npt

from iota_p2p_protocols.errors import LocalProtocolError, MalformedError

Number = TypeVar("Number", bound=np.generic)
Vector = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]
Encoded = bytes | memoryview

# 64 KiB of float32: a fault proof stays small, and its hash and its proof cost little against its values.
BLOCK_VALUES = 16_384
# No weight moves this far in an epoch. Twice the exponent still fits a float32, so that no norm or mean overflows.
MAX_MAGNITUDE = 2.0**16
# Smaller numbers may count as zero: far from where platforms differ in whether they flush to zero.
MIN_MAGNITUDE = 2.0**-100
MAX_VALUES = BLOCK_VALUES << 16  # as many blocks as a commitment may have (`iota_p2p_crypto.block_commitment`)
_CACHE_LINE = 64  # bytes
ROWS_AT_ONCE = 4  # 256 KiB of float32, and copies of it, stay in a core's cache


class Codec(ABC):
    """One way to write values as bytes.

    Attributes:
        name: as in the run's merge section.
        unit: values that are encoded together; a shorter last unit is filled up with zeros.
        unit_bytes: bytes a unit takes.
    """

    name: ClassVar[str]
    unit: ClassVar[int]
    unit_bytes: ClassVar[int]

    @property
    def block_bytes(self) -> int:
        """The bytes of a full block."""
        return self.encoded_bytes(BLOCK_VALUES)

    def encoded_bytes(self, num_values: int) -> int:
        """Return the bytes of so many values, of one block or of many."""
        return -(-num_values // self.unit) * self.unit_bytes

    @final
    def encode(self, values: Vector) -> bytes:
        """Return a vector's blocks, end to end; values beyond MAX_MAGNITUDE are cut off there.

        Raises:
            LocalProtocolError: if there are no values or too many, or one is not finite: a replica whose weights have
                run away has nothing to contribute.
        """
        encoded = np.empty(self.encoded_bytes(len(values)), dtype=np.uint8)
        self.encode_into(encoded, values)
        return encoded.tobytes()

    @final
    def encode_into(self, encoded: Raw, values: Vector) -> None:
        """Write a vector's blocks, end to end; raises LocalProtocolError as `encode` does."""
        if values.ndim != 1 or values.dtype != np.float32 or not 1 <= len(values) <= MAX_VALUES:
            raise LocalProtocolError(f"expected 1 to {MAX_VALUES} float32, got {values.shape} of {values.dtype}")
        num_full = len(values) // BLOCK_VALUES
        for first in range(0, num_full, ROWS_AT_ONCE):
            end = min(first + ROWS_AT_ONCE, num_full)
            rows = values[first * BLOCK_VALUES : end * BLOCK_VALUES].reshape(end - first, BLOCK_VALUES)
            into = encoded[first * self.block_bytes : end * self.block_bytes]
            self._encode(_bounded(rows), into.reshape(end - first, self.block_bytes))
        rest = values[num_full * BLOCK_VALUES :]
        if len(rest):
            padded = np.zeros((1, -(-len(rest) // self.unit) * self.unit), dtype=np.float32)
            padded[0, : len(rest)] = rest
            self._encode(_bounded(padded), encoded[num_full * self.block_bytes :].reshape(1, -1))

    @final
    def decode_block(self, block: Encoded, num_values: int) -> Vector:
        """Return the V values of one block.

        Raises:
            MalformedError: if the block has another length than so many values take (`block-length`), or holds one
                that is not finite or beyond MAX_MAGNITUDE (`block-values`).
        """
        values = np.empty(num_values, dtype=np.float32)
        self.decode_block_into(values, block)
        return values

    @final
    def decode_block_into(self, values: Vector, block: Encoded) -> None:
        """Write the V values of one block; raises MalformedError as `decode_block` does."""
        num_values = len(values)
        if len(block) != self.encoded_bytes(num_values):
            raise MalformedError(
                "block-length", f"expected {self.encoded_bytes(num_values)} bytes of {self.name}, got {len(block)}"
            )
        for peak in self._decode_rows(values[None], np.frombuffer(block, dtype=np.uint8)[None]).values():
            raise MalformedError("block-values", f"expected finite values up to {MAX_MAGNITUDE:.0f}, got {peak}")

    @final
    def decode_blocks_into(self, rows: Vector, blocks: Sequence[Encoded]) -> frozenset[int]:
        """Write blocks of V values each into R rows; return those whose block is malformed, which hold anything."""
        num_bytes = self.encoded_bytes(rows.shape[1])
        raw = np.zeros((len(blocks), num_bytes), dtype=np.uint8)
        for row, block in zip(raw, blocks, strict=True):
            if len(block) == num_bytes:
                row[:] = np.frombuffer(block, dtype=np.uint8)
        short = (row for row, block in enumerate(blocks) if len(block) != num_bytes)
        return frozenset((*short, *self._decode_rows(rows, raw)))

    def _decode_rows(self, rows: Vector, raw: Raw) -> dict[int, float]:
        """Write R blocks of V values from as many rows of bytes; return the peaks of rows where it is too high."""
        num_values = rows.shape[1]
        if not 1 <= num_values <= BLOCK_VALUES:
            raise LocalProtocolError(f"expected 1 to {BLOCK_VALUES} values in a block, got {num_values}")
        filled = num_values + -num_values % self.unit
        whole = rows if filled == num_values else np.empty((len(rows), filled), dtype=np.float32)
        are_bounded = self._are_bounded(raw)
        with nullcontext() if are_bounded else np.errstate(invalid="ignore", over="ignore"):  # they are told below
            self._decode(raw, whole)
        if whole is not rows:
            rows[:] = whole[:, :num_values]
        if are_bounded:
            return {}
        peaks = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        return {row: peak for row, peak in enumerate(peaks.tolist()) if not peak <= MAX_MAGNITUDE}  # true of NaN, too

    @final
    def decode(self, encoded: Encoded, num_values: int) -> Vector:
        """Return the W values of a whole vector; raises MalformedError as `decode_block` does."""
        values = np.empty(num_values, dtype=np.float32)
        self.decode_into(values, encoded)
        return values

    @final
    def decode_into(self, values: Vector, encoded: Encoded) -> None:
        """Write the W values of a whole vector; raises MalformedError as `decode_block` does."""
        num_values = len(values)
        if len(encoded) != self.encoded_bytes(num_values):
            raise MalformedError(
                "vector-length", f"expected {self.encoded_bytes(num_values)} bytes of {self.name}, got {len(encoded)}"
            )
        view, size = memoryview(encoded), self.block_bytes
        blocks = [view[start : start + size] for start in range(0, len(encoded), size)]
        for index in self.decode_run_into(values, blocks):
            self.decode_block_into(values[index * BLOCK_VALUES :][:BLOCK_VALUES], blocks[index])  # raises

    @final
    def decode_run_into(self, values: Vector, blocks: Sequence[Encoded]) -> list[int]:
        """Write the values of blocks that follow each other; return those that are malformed, of which it writes zeros.

        Args:
            values: those of all blocks; each but the last one has BLOCK_VALUES.
            blocks: the blocks.
        """
        full = len(values) // BLOCK_VALUES
        runs = [range(first, min(first + ROWS_AT_ONCE, full)) for first in range(0, full, ROWS_AT_ONCE)]
        if full < len(blocks):
            runs.append(range(full, len(blocks)))
        malformed: list[int] = []
        for run in runs:
            rows = values[run.start * BLOCK_VALUES : run.stop * BLOCK_VALUES].reshape(len(run), -1)
            wrong = sorted(self.decode_blocks_into(rows, blocks[run.start : run.stop]))
            for row in wrong:
                rows[row] = 0
            malformed += [run[row] for row in wrong]
        return malformed

    @abstractmethod
    def _encode(self, rows: Vector, into: Raw) -> None:
        """Encode R blocks of whole units of finite, bounded values into R rows of bytes."""

    @abstractmethod
    def _decode(self, raw: Raw, into: Vector) -> None:
        """Write all units of R blocks into as many rows of values; anything at all may be in the bytes."""

    def _are_bounded(self, _: Raw) -> bool:
        """Return whether few bytes of R blocks tell already that no magnitude exceeds MAX_MAGNITUDE."""
        return False


def aligned(num_rows: int, num_values: int, dtype: type[Number]) -> npt.NDArray[Number]:
    """Return room for rows that begin where a cache line does; operations on others may take twice as long."""
    num_bytes = num_rows * num_values * np.dtype(dtype).itemsize
    raw = np.empty(num_bytes + _CACHE_LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + num_bytes].view(dtype).reshape(num_rows, num_values)


def num_blocks(num_values: int) -> int:
    """Return how many blocks so many values make."""
    return -(-num_values // BLOCK_VALUES)


def block_values(num_values: int, index: int) -> int:
    """Return how many values of a vector are in one of its blocks."""
    return min(BLOCK_VALUES, num_values - index * BLOCK_VALUES)


def block_counts(num_values: int) -> list[int]:
    """Return how many values are in each block of a vector."""
    return [block_values(num_values, index) for index in range(num_blocks(num_values))]


def pairwise_sum(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum of each row, by adding its halves until one number is left: one order on every platform."""
    length = rows.shape[-1]
    width = 1 << (length - 1).bit_length()
    folded = rows
    if length < width:
        folded = np.zeros((*rows.shape[:-1], width), dtype=np.float64)
        folded[..., :length] = rows
    while width > 1:
        width //= 2
        folded = np.add(folded[..., :width], folded[..., width:])
    total: npt.NDArray[np.float64] = folded[..., 0]
    return total


def _bounded(rows: Vector) -> Vector:
    peak = max(rows.max(), -rows.min())
    if peak <= MAX_MAGNITUDE:
        return rows
    if not np.isfinite(peak):
        raise LocalProtocolError(f"expected finite values to encode, got {peak}")
    return np.clip(rows, -np.float32(MAX_MAGNITUDE), np.float32(MAX_MAGNITUDE))
