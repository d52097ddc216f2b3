"""Initial weights as a pure function of (run seed, parameter name): nobody downloads epoch 0 (decision 0101).

The random bits are numpy's Philox counter generator, keyed by a hash of seed and name. They become numbers by integer
sums and one float32 multiplication, so every platform and every library version gets the same bits: no libm, no
torch generator, no BLAS.

Shapes: R rows and C columns of a matrix.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iota_p2p_crypto.digest import tagged_digest

FloatArray = npt.NDArray[np.float32]
Start = Callable[[int, str, tuple[int, int]], FloatArray]
"""Draws a matrix from (seed, name, shape)."""

_TAG = "iota-p2p/weights/1"
# A standard draw is the sum of the four 16-bit parts of one word, less its mean, over its standard deviation:
# close to a normal law, never beyond 3.47 deviations.
_MEAN = 2 * 0xFFFF
_INVERSE_STD = np.float32(1 / math.sqrt((2**32 - 1) / 3))
_CHUNK_WORDS = 1 << 20  # 8 MB of random words at a time, whatever the size of the matrix


def generator(seed: int, name: str) -> np.random.Philox:
    """Return the bit generator of a name, to be read with `random_raw` only: the rest may change with numpy."""
    key = tagged_digest(_TAG, seed.to_bytes(8, "big"), name.encode("utf-8"))
    return np.random.Philox(key=int.from_bytes(key[:16], "big"))


def standard(seed: int, name: str, count: int) -> FloatArray:
    """Return `count` float32 draws of mean 0 and variance 1, the same bits everywhere."""
    bits = generator(seed, name)
    values = np.empty(count, np.float32)
    for start in range(0, count, _CHUNK_WORDS):
        words = np.asarray(bits.random_raw(min(_CHUNK_WORDS, count - start)), np.uint64)
        sums = sum(((words >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int32) for shift in (0, 16, 32, 48))
        values[start : start + len(words)] = np.asarray(sums - _MEAN, np.float32) * _INVERSE_STD
    return values


def normal(std: float) -> Start:
    """Start from independent draws of this standard deviation."""

    def draw(seed: int, name: str, shape: tuple[int, int]) -> FloatArray:
        return standard(seed, name, shape[0] * shape[1]).reshape(shape) * np.float32(std)

    return draw


def around_one(std: float) -> Start:
    """Start from rows around one: each is a draw of its own plus a draw common to all, both of this deviation.

    For tables of token vectors. Without a common part a token's vector says nothing but the token, and queries and
    keys must first learn a direction that all tokens share before attention can go by position (decision 0105).
    """

    def draw(seed: int, name: str, shape: tuple[int, int]) -> FloatArray:
        common = standard(seed, f"{name}.common", shape[1])
        return (standard(seed, name, shape[0] * shape[1]).reshape(shape) + common) * np.float32(std)

    return draw


def orthonormal(frame: str, scale: float, *, transposed: bool = False) -> Start:
    """Start from `scale` times the orthonormal frame of that name, which needs R >= C (R <= C if transposed)."""

    def draw(seed: int, name: str, shape: tuple[int, int]) -> FloatArray:
        del name  # several matrices share a frame
        rows, columns = shape[::-1] if transposed else shape
        values = frame_of(seed, frame, rows, columns) * np.float32(scale)
        return np.ascontiguousarray(values.T) if transposed else values

    return draw


def largest_frame(rows: int) -> int:
    """Return how many columns `frame_of` can give: the largest power of two that divides `rows`."""
    return rows & -rows


def frame_of(seed: int, name: str, rows: int, columns: int) -> FloatArray:
    """Return a matrix R x C with exactly orthogonal columns of norm 1 and entries +-1/sqrt(R).

    Hadamard blocks of the largest power of two 2^p that divides R are stacked, with drawn columns and drawn row
    signs: orthogonal by construction, without a factorisation whose rounding depends on the platform.

    Raises:
        ValueError: if there are more than 2^p columns.
    """
    block = largest_frame(rows)
    if columns > block:
        raise ValueError(f"expected at most {block} orthonormal columns of {rows} rows, got {columns}")
    words = np.asarray(generator(seed, name).random_raw(block + rows), np.uint64)
    chosen = np.sort(np.argsort(words[:block], kind="stable")[:columns])
    odd = np.bitwise_count(np.arange(rows)[:, None] % block & chosen[None, :]) & 1
    negative = odd ^ (words[block:, None] & np.uint64(1)).astype(odd.dtype)
    signs: FloatArray = 1 - 2 * negative.astype(np.float32)
    return signs * np.float32(1 / math.sqrt(rows))


class Seeded(nn.Module, ABC):
    """A module that owns drawn values and can fill them in."""

    @abstractmethod
    def fill(self, seed: int, name: str) -> None:
        """Fill in the values that (seed, name) determine."""


class Linear(nn.Linear, Seeded):
    """A matrix without bias, left unset until `fill`."""

    def __init__(self, num_in: int, num_out: int, start: Start | None = None) -> None:
        self.start = start or normal(1 / math.sqrt(3 * num_in))  # the deviation of torch's own start
        super().__init__(num_in, num_out, bias=False)

    def reset_parameters(self) -> None:
        """Leave the weights unset: torch's generator is no part of a run."""

    def fill(self, seed: int, name: str) -> None:
        """Draw the weights."""
        _assign(self.weight, self.start(seed, name, (self.out_features, self.in_features)))


class Table(nn.Embedding, Seeded):
    """One learned vector per token, left unset until `fill`."""

    def __init__(self, vocab_size: int, width: int, std: float) -> None:
        self.start = around_one(std)
        super().__init__(vocab_size, width)

    def reset_parameters(self) -> None:
        """Leave the weights unset: torch's generator is no part of a run."""

    def fill(self, seed: int, name: str) -> None:
        """Draw the weights."""
        _assign(self.weight, self.start(seed, name, (self.num_embeddings, self.embedding_dim)))


class Fixed(Seeded):
    """A drawn matrix that is never trained and never travels: everybody can draw it.

    `shared_name` makes several stages draw the same one.
    """

    weight: Tensor

    def __init__(self, shape: tuple[int, int], start: Start, shared_name: str) -> None:
        super().__init__()
        self.start = start
        self.shared_name = shared_name
        self.register_buffer("weight", torch.empty(shape), persistent=False)

    def fill(self, seed: int, name: str) -> None:
        """Draw the matrix, by its shared name and not by where it sits."""
        del name
        rows, columns = self.weight.shape
        _assign(self.weight, self.start(seed, self.shared_name, (rows, columns)))


def _assign(target: Tensor, values: FloatArray) -> None:
    with torch.no_grad():
        target.copy_(torch.from_numpy(values))
