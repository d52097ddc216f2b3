"""`FetchJournal`: the chunks of states being fetched, on disk, so that a restart goes on where the last start stopped.

    fetching/stage-003.listing       what was being fetched
    fetching/chunks/<digest>.chunk   what of it came

Bounded by the states of the stages that are being fetched. A disk that takes no more costs us only the resuming.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from iota_p2p.custody.chunk_store import ChunkStore
from iota_p2p.custody.listing_file import read_listing, write_listing
from iota_p2p_crypto.digest import Digest
from iota_p2p_protocols.state_manifest import Listing

# Training has gone on for so long that the rest of an older state is not to be had, or not worth having.
RESUME_S = 900.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Beside(Protocol):
    """How what takes long is done without holding up the event loop: `Lane.beside`."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Do a piece of work."""
        ...


@dataclass(slots=True)
class FetchJournal:
    """The journal of one run, in one folder.

    Attributes:
        folder: where it is.
        run_id: of the run.
        beside: does the disk's work.
    """

    folder: Path
    run_id: bytes
    beside: Beside
    _chunks: ChunkStore = field(init=False)

    def __post_init__(self) -> None:
        self._chunks = ChunkStore(self.folder / "chunks")

    async def unfinished(self, stage: int, now_s: float) -> Listing | None:
        """Return what was being fetched of a stage when we stopped; nothing if that is long ago."""
        listing = await self.beside(partial(read_listing, self._path(stage), self.run_id))
        if listing is not None and listing.state.issued_s + RESUME_S > now_s:
            return listing
        await self.end(stage)
        return None

    async def begin(self, listing: Listing) -> None:
        """Note what is being fetched; chunks of anything else of its stage are dropped."""
        await self.beside(partial(self._note, listing))

    async def get(self, name: Digest) -> bytes | None:
        """Return a chunk that came before."""
        return await self.beside(partial(self._chunks.get, name))

    async def put(self, name: Digest, chunk: bytes) -> None:
        """Write a chunk down, if the disk takes it."""
        await self.beside(partial(self._put, name, chunk))

    async def end(self, stage: int) -> None:
        """Drop what was noted of a stage: it is here, or given up."""
        await self.beside(partial(self._drop, stage))

    def _path(self, stage: int) -> Path:
        return self.folder / f"stage-{stage:03d}.listing"

    def _note(self, listing: Listing) -> None:
        try:
            write_listing(self._path(listing.state.stage), listing)
        except OSError as error:
            _log.warning("fetch not noted", extra={"reason": error.strerror})
        self._sweep()

    def _put(self, name: Digest, chunk: bytes) -> None:
        try:
            self._chunks.put(name, chunk)
        except OSError as error:
            _log.warning("chunk not noted", extra={"reason": error.strerror})

    def _drop(self, stage: int) -> None:
        self._path(stage).unlink(missing_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        listings = (read_listing(path, self.run_id) for path in self.folder.glob("stage-*.listing"))
        self._chunks.keep_only({name for listing in listings if listing is not None for name in listing.digests})
