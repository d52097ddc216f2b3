"""Shards: content-addressed files of tokens, and the windows of tokens that microbatches are made of.

A shard file is a header of 16 bytes and then its token ids, little-endian, in 1, 2 or 4 bytes each:

    8 bytes  "IOTASHD1"        1 byte  bytes per id        3 bytes zero        4 bytes number of ids

It is named by the SHA-256 of the whole file, so a shard from anybody is checked by its name alone.
"""

import os
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iota_p2p.run.spec import DataSpec, ModelSpec, ShardRef
from iota_p2p.run.tokens import Tokenizer, Tokens
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import MalformedError, OversizedError, PeerUnavailableError, UserError

Ids = npt.NDArray[np.unsignedinteger]

_HEADER = struct.Struct("<8sB3xI")
_MAGIC = b"IOTASHD1"
_ID_TYPES: dict[int, np.dtype[np.unsignedinteger]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
SHARD_TOKENS = 1 << 20  # 1 to 4 MB: fetched in a second, and few enough for the spec to list
# Twice the largest shard we would pack ourselves with 4-byte ids. A peer may send one; it is held in memory.
MAX_SHARD_BYTES = 16 * SHARD_TOKENS
_CACHED_SHARDS = 16  # shards of a Windows kept decoded: at most 64 MB


def pack(tokens: Tokens, vocab_size: int) -> bytes:
    """Return the file of one shard, in the smallest ids that hold `vocab_size`."""
    size = next(size for size, kind in _ID_TYPES.items() if vocab_size - 1 <= np.iinfo(kind).max)
    return _HEADER.pack(_MAGIC, size, len(tokens)) + tokens.astype(_ID_TYPES[size]).tobytes()


def unpack(data: bytes) -> Ids:
    """Return the token ids of a shard file, without copying.

    Raises:
        OversizedError: if it is larger than MAX_SHARD_BYTES.
        MalformedError: if it is not one.
    """
    if len(data) > MAX_SHARD_BYTES:
        raise OversizedError("shard-size", f"expected at most {MAX_SHARD_BYTES} bytes, got {len(data)}")
    if len(data) < _HEADER.size:
        raise MalformedError("shard-header", f"expected a header of {_HEADER.size} bytes, got {len(data)}")
    magic, size, count = _HEADER.unpack_from(data)
    if magic != _MAGIC or size not in _ID_TYPES or any(data[9:12]):
        raise MalformedError("shard-header", f"expected the header of a shard, got {data[:12].hex()}")
    if not count or len(data) != _HEADER.size + size * count:
        raise MalformedError("shard-length", f"expected {count} ids of {size} bytes, got {len(data)} bytes in all")
    return np.frombuffer(data, _ID_TYPES[size], offset=_HEADER.size)


def file_sizes(ref: ShardRef) -> frozenset[int]:
    """Return the lengths that a shard's file can have, by the bytes its ids may take."""
    return frozenset(_HEADER.size + size * ref.num_tokens for size in _ID_TYPES)


class ShardStore:
    """Shard files in a folder, each under its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, ref: ShardRef) -> bool:
        """True if the shard is here."""
        return self._path(ref.digest).exists()

    def add(self, data: bytes, expected: ShardRef | None = None) -> ShardRef:
        """Store a shard file, from ourselves or from a peer, and return its reference.

        Raises:
            MalformedError: if it is no shard, or not the expected one.
            OversizedError: if it is larger than MAX_SHARD_BYTES.
        """
        ref = _checked(data, expected)
        path = self._path(ref.digest)
        scratch = path.with_suffix(f".{os.getpid()}.partial")  # a reader, or a crash, never sees half a shard
        try:
            scratch.write_bytes(data)
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)  # the disk is full: give back what it took
            raise
        return ref

    def read(self, ref: ShardRef) -> bytes:
        """Return a shard file, checked against its digest.

        Raises:
            PeerUnavailableError: if it is not here: it must be fetched first.
            MalformedError: if the file on disk is damaged.
        """
        try:
            data = self._path(ref.digest).read_bytes()
        except FileNotFoundError as error:
            raise PeerUnavailableError(f"shard {ref.digest} has not been fetched yet") from error
        _checked(data, ref)
        return data

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.tokens"


class Windows:
    """The windows of a list of shards: T+1 tokens each, T apart, so that every token but a few is a label once.

    Windows do not cross shards, so any one of them needs a single shard.
    """

    def __init__(self, store: ShardStore, shards: Sequence[ShardRef], model: ModelSpec) -> None:
        self.shards = shards
        self.length = model.sequence_length
        self._store = store
        self._vocab_size = model.vocab_size
        self._ends = list(accumulate((ref.num_tokens - 1) // self.length for ref in shards))
        self._tokens = lru_cache(_CACHED_SHARDS)(self._load)
        if not self.count:
            raise UserError(f"the data has no shard of {self.length + 1} tokens, one more than a sequence")

    @property
    def count(self) -> int:
        """How many windows there are."""
        return self._ends[-1]

    def shard_of(self, index: int) -> ShardRef:
        """Return the shard that holds a window, which has to be in the store before it is read."""
        return self.shards[bisect_right(self._ends, index)]

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the windows of these indices, B x (T+1)."""
        return np.stack([self._window(index) for index in indices])

    def _window(self, index: int) -> npt.NDArray[np.int64]:
        if not 0 <= index < self.count:
            raise IndexError(f"expected a window below {self.count}, got {index}")
        shard = bisect_right(self._ends, index)
        start = (index - (self._ends[shard - 1] if shard else 0)) * self.length
        return self._tokens(self.shards[shard])[start : start + self.length + 1].astype(np.int64)

    def _load(self, ref: ShardRef) -> Ids:
        ids = unpack(self._store.read(ref))
        if ids.max() >= self._vocab_size:  # whoever wrote the spec packed it with another tokenizer
            raise MalformedError("shard-vocabulary", f"expected ids below {self._vocab_size}, got {ids.max()}")
        return ids


def pack_documents(documents: Iterable[str], tokenizer: Tokenizer, store: ShardStore) -> tuple[ShardRef, ...]:
    """Tokenize documents into the store and return its shards, all of SHARD_TOKENS but the last."""
    return tuple(store.add(pack(tokens, tokenizer.vocab_size)) for tokens in _pieces(documents, tokenizer))


def data_spec(train: Iterable[str], heldout: Iterable[str], tokenizer: Tokenizer, store: ShardStore) -> DataSpec:
    """Pack both parts of a corpus and return how the run's spec names them; raises UserError if one is empty."""
    parts = [pack_documents(documents, tokenizer, store) for documents in (train, heldout)]
    if not all(parts):
        raise UserError("the corpus is too small: it needs at least one training and one held-out document")
    return DataSpec(tokenizer=tokenizer.spec, train=parts[0], heldout=parts[1])


def _pieces(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[Tokens]:
    waiting: list[Tokens] = []
    num_waiting = 0
    for text in documents:
        waiting.append(tokenizer.encode(text))
        num_waiting += len(waiting[-1])
        if num_waiting >= SHARD_TOKENS:
            tokens = np.concatenate(waiting)
            while len(tokens) >= SHARD_TOKENS:
                yield tokens[:SHARD_TOKENS]
                tokens = tokens[SHARD_TOKENS:]
            waiting, num_waiting = [tokens], len(tokens)
    if any(map(len, waiting)):
        yield np.concatenate(waiting)


def _checked(data: bytes, expected: ShardRef | None) -> ShardRef:
    """Return the reference of a shard file; raises MalformedError if it is not the expected one."""
    name = digest(data).hex()
    if expected is not None and name != expected.digest:
        raise MalformedError("shard-digest", f"expected shard {expected.digest}, got {name}")
    ref = ShardRef(digest=name, num_tokens=len(unpack(data)))
    if expected is not None and ref != expected:
        raise MalformedError("shard-tokens", f"expected {expected.num_tokens} tokens, got {ref.num_tokens}")
    return ref
