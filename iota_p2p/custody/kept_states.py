"""`KeptStates`: what a custodian keeps on disk for stages that it does not hold.

    kept/stage-003-<signer>.listing    one per stage and signer: the last one pushed that is whole
    kept/chunks/<digest>.chunk         shared by all listings, those that are still arriving among them

Everything is bounded by one budget. A listing whose chunks are still arriving counts in full, so that what has been
accepted fits; nothing that is kept makes room for something new by another signer while it is fresh.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iota_p2p.custody.chunk_store import ChunkStore
from iota_p2p.custody.listing_file import read_listing, write_listing
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.custody import merit
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.state_manifest import Listing, check_chunk

# Signers whose state of one stage we keep: pushers follow each other as peers come and go.
MAX_SIGNERS = 3
# A state that was not renewed for so long belongs to a pusher that is gone for good, or was relieved.
STALE_S = 1800.0
# Listings arriving at a time, and how long one may rest before it counts as given up.
MAX_ARRIVING = 16
ARRIVAL_IDLE_S = 120.0

_log = logging.getLogger(__name__)
_Key = tuple[int, PeerId]


@dataclass(slots=True)
class _Arrival:
    """A listing of which chunks are still missing, and when we last heard of it."""

    listing: Listing
    heard_s: float


class KeptStates:
    """The states in one folder; not thread-safe: one call at a time."""

    def __init__(self, folder: Path, run_id: bytes, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.chunks = ChunkStore(folder / "chunks")
        self._folder = folder
        self._kept: dict[_Key, Listing] = {}
        self._arriving: dict[Digest, _Arrival] = {}
        for path in folder.glob("*.partial"):  # of a process that was killed
            path.unlink(missing_ok=True)
        for path in sorted(folder.glob("stage-*.listing")):
            listing = read_listing(path, run_id)
            if listing is not None and path == self._path(_key(listing)):
                self._kept[_key(listing)] = listing
        self.chunks.keep_only(self._referenced())

    @property
    def num_bytes(self) -> int:
        """How much of the budget is taken."""
        listings = [*self._kept.values(), *(arrival.listing for arrival in self._arriving.values())]
        return sum(listing.state.num_bytes for listing in listings)

    def stages(self) -> Sequence[int]:
        """Return the stages of which a state is kept."""
        return sorted({stage for stage, _ in self._kept})

    def best(self, stage: int, now_s: float) -> Listing | None:
        """Return the best state kept of a stage, of those that have not expired."""
        kept = self._kept.items()
        listings = [listing for (of, _), listing in kept if of == stage and listing.state.expires_s > now_s]
        return max(listings, key=lambda listing: merit(listing.state), default=None)

    def offer(self, listing: Listing, now_s: float) -> Sequence[int]:
        """Return which chunks of a state are missing; if none are, it is kept from now on.

        Raises:
            RefusedError: if there is no room for it, or a later one by the same signer is kept.
            OSError: if the disk does not take it.
        """
        self._forget_given_up(now_s)
        kept = self._kept.get(_key(listing))
        if kept is not None and kept.state.sequence > listing.state.sequence:
            raise RefusedError("older", "expected a state later than the one kept, got an earlier one")
        if listing.name not in self._arriving and (kept is None or kept.name != listing.name):
            self._make_room(listing, now_s)
            self._arriving[listing.name] = _Arrival(listing, now_s)
        missing = [
            index for index, name in enumerate(listing.digests) if not self.chunks.has(name, _length(listing, index))
        ]
        if not missing and listing.name in self._arriving:
            write_listing(self._path(_key(listing)), listing)
            del self._arriving[listing.name]
            self._kept[_key(listing)] = listing
            self._drop_unused(() if kept is None else kept.digests)
        elif missing and listing.name not in self._arriving:  # the disk lost some of what we keep
            self._arriving[listing.name] = _Arrival(listing, now_s)
        return missing

    def put(self, name: Digest, index: int, chunk: bytes, now_s: float) -> None:
        """Store a chunk of a state that is arriving.

        Raises:
            RefusedError: if no such state is arriving.
            MalformedError: if it is not that chunk.
            OSError: if the disk does not take it.
        """
        arrival = self._arriving.get(name)
        if arrival is None:
            raise RefusedError("not-offered", "expected a chunk of a state that was offered, got another")
        check_chunk(arrival.listing, index, chunk)
        arrival.heard_s = now_s
        self.chunks.put(arrival.listing.digests[index], chunk)

    def _make_room(self, listing: Listing, now_s: float) -> None:
        """See that a state fits, dropping stale ones of its stage; raises RefusedError if it does not."""
        stage, signer = _key(listing)
        # A signer's newer push replaces the one it did not finish.
        self._give_up([a.listing for a in self._arriving.values() if _key(a.listing) == (stage, signer)])
        others = [
            other for other in self._kept.values() if _key(other) != (stage, signer) and other.state.stage == stage
        ]
        for other in sorted(others, key=lambda other: merit(other.state)):
            if len(others) >= MAX_SIGNERS and other.state.issued_s < now_s - STALE_S:
                others.remove(other)
                self._forget(other)
        if len(others) >= MAX_SIGNERS or len(self._arriving) >= MAX_ARRIVING:
            raise RefusedError("full", f"expected fewer states of stage {stage}, got as many as are kept")
        if self.num_bytes + listing.state.num_bytes > self.budget_bytes:
            raise RefusedError(
                "full", f"expected room for {listing.state.num_bytes} bytes, got {self.budget_bytes - self.num_bytes}"
            )

    def _forget_given_up(self, now_s: float) -> None:
        self._give_up([a.listing for a in self._arriving.values() if a.heard_s < now_s - ARRIVAL_IDLE_S])

    def _give_up(self, listings: Iterable[Listing]) -> None:
        for listing in listings:
            del self._arriving[listing.name]
            self._drop_unused(listing.digests)

    def _forget(self, listing: Listing) -> None:
        del self._kept[_key(listing)]
        self._path(_key(listing)).unlink(missing_ok=True)
        self._drop_unused(listing.digests)

    def _drop_unused(self, names: Iterable[Digest]) -> None:
        self.chunks.remove(set(names) - self._referenced())

    def _referenced(self) -> set[Digest]:
        listings = [*self._kept.values(), *(arrival.listing for arrival in self._arriving.values())]
        return {name for listing in listings for name in listing.digests}

    def _path(self, key: _Key) -> Path:
        stage, signer = key
        return self._folder / f"stage-{stage:03d}-{signer}.listing"


def _key(listing: Listing) -> _Key:
    return listing.state.stage, listing.manifest.signer


def _length(listing: Listing, index: int) -> int:
    start, end = listing.state.span(index)
    return end - start
