"""`ChunkStore`: chunks of states on disk, each under its digest and believed only as far as that.

Chunks are not synced to disk one by one: a power cut may take some, which reading notices, and they are kept elsewhere,
too. What must survive by itself, our own stages' states, is in `state_files`.
"""

import os
from collections.abc import Collection
from pathlib import Path

from iota_p2p_crypto.digest import DIGEST_BYTES, Digest, digest

_SUFFIX = ".chunk"
_NAME_CHARACTERS = 2 * DIGEST_BYTES
# The last damaged chunk is kept for whoever wants to know what the disk does.
_DAMAGED = "last.damaged"


class ChunkStore:
    """Chunk files in one folder; one process at a time (see `home_lock`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: Digest, chunk: bytes) -> None:
        """Store a chunk whose digest has been checked; raises OSError if the disk does not take it, and leaves none."""
        path = self._path(name)
        scratch = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(chunk)
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise

    def get(self, name: Digest) -> bytes | None:
        """Return a chunk, or None if it is not here; a damaged one is set aside and counts as not here."""
        path = self._path(name)
        try:
            chunk = path.read_bytes()
            if digest(chunk) == name:
                return chunk
            path.replace(self.folder / _DAMAGED)
        except OSError:
            return None  # not there, or not readable: either way it has to come from elsewhere
        return None

    def has(self, name: Digest, num_bytes: int) -> bool:
        """Return whether a file of this name and length is here, without reading it."""
        try:
            return self._path(name).stat().st_size == num_bytes
        except OSError:
            return False

    def remove(self, names: Collection[Digest]) -> None:
        """Remove chunks."""
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def keep_only(self, names: Collection[Digest]) -> None:
        """Remove everything but these chunks, leftovers of killed processes among it."""
        wanted = {self._path(name) for name in names}
        for path in self.folder.glob("*"):
            if path not in wanted and (path.suffix in (_SUFFIX, ".partial")):
                path.unlink(missing_ok=True)

    def names(self) -> set[Digest]:
        """Return what is here."""
        return {
            Digest(bytes.fromhex(path.stem))
            for path in self.folder.glob(f"*{_SUFFIX}")
            if len(path.stem) == _NAME_CHARACTERS
        }

    def _path(self, name: Digest) -> Path:
        return self.folder / f"{name.hex()}{_SUFFIX}"
