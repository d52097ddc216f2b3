"""Fetching a stage's state: one peer says what it is, and its chunks come from everybody who has them, at once.

A source that dies, is slow, or lacks chunk after chunk is not asked any more; one that sends a wrong chunk is charged
besides, and the chunk comes from another. What came is kept, in memory for the next manifest, and in the journal for
our next start.
"""

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p.custody.fetch_journal import FetchJournal
from iota_p2p.network.streams import Request, Streams
from iota_p2p.training.stage_state import StageState, StateBounds
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.custody import ChunkRequest, StateAnswer, StateRequest
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import STATE
from iota_p2p_protocols.state_manifest import Listing, check_chunk, check_listing, open_listing

# Chunks under way: enough to keep several uplinks busy while others are checked; 8 MiB.
PARALLEL_CHUNKS = 8
# For freezing and hashing a state: 40 GB at 1.5 GB/s, behind other work.
MANIFEST_PATIENCE_S = 60.0
# For a chunk of 1 MiB: eight at once over a home uplink of 4 Mbit/s take 16 s.
CHUNK_PATIENCE_S = 60.0
# A source that has had none of so many chunks has another state, not this one.
MAX_MISSES = 4

_log = logging.getLogger(__name__)
_FAILURES = (PeerUnavailableError, RefusedError, RemoteProtocolError, trio.TooSlowError)

FindChunk = Callable[[Digest], Awaitable[bytes | None]]


async def _nowhere(_: Digest) -> bytes | None:
    return None


@dataclass(frozen=True, slots=True)
class StateProgress:
    """How far a fetch is.

    Attributes:
        signer: whose state it is.
        num_bytes: of the whole.
        fetched_bytes: of those, the ones here; chunks that the state has twice count once.
    """

    signer: PeerId
    num_bytes: int
    fetched_bytes: int


@dataclass(slots=True, kw_only=True)
class StateFetch:
    """Fetches one stage's state.

    Attributes:
        streams: how sources are called.
        run_id: our run.
        stage: which stage.
        bounds: what its state can be.
        check: raises RemoteProtocolError for a state that is no good (`stage_state.check_state` on the lane).
        clock: Unix seconds.
        find: returns a chunk that is on our own disk.
        journal: keeps what came for our next start.
        report: told of the progress.
    """

    streams: Streams
    run_id: bytes
    stage: int
    bounds: StateBounds
    check: Callable[[StageState], Awaitable[None]]
    clock: Callable[[], float]
    find: FindChunk = _nowhere
    journal: FetchJournal | None = None
    report: Callable[[StateProgress], None] = lambda _: None
    _chunks: dict[Digest, bytes] = field(default_factory=dict)  # of the manifest before, for the next
    _here_bytes: int = 0

    async def run(self, holders: Sequence[PeerId], others: Sequence[PeerId] = ()) -> StageState:
        """Return the state of the first holder that gives a good one, trying them in order.

        All of them, and `others`, are asked for chunks. What an earlier start began to fetch comes first.

        Raises:
            PeerUnavailableError: if none of them did; the reasons are in its text.
        """
        state = await self._resumed([*holders, *others])
        if state is not None:
            return state
        reasons = []
        for holder in holders:
            try:
                listing = await self.ask(holder, kept=False)
                return await self.fetch(listing, [holder, *(peer for peer in (*holders, *others) if peer != holder)])
            except _FAILURES as error:
                reason = str(error) or "too slow"
            _log.warning("state not fetched", extra={"stage": self.stage, "peer": holder, "reason": reason})
            reasons.append(f"{holder}: {reason}")
        tried = "; ".join(reasons) or "nobody to ask"
        raise PeerUnavailableError(f"expected a holder of stage {self.stage} to send its state, got none ({tried})")

    async def ask(self, source: PeerId, *, kept: bool) -> Listing:
        """Return what a peer says that the state of our stage is.

        Raises:
            PeerUnavailableError, RefusedError, trio.TooSlowError: if it says nothing.
            RemoteProtocolError: if it says something impossible; it has been charged.
        """
        request = StateRequest(run_id=self.run_id, stage=self.stage, kept=kept)
        with trio.fail_after(MANIFEST_PATIENCE_S):
            response = await self.streams.call(source, STATE, Request(request.to_fields()))
        with self.streams.ledger.charging(source):
            answer = StateAnswer.from_fields(response.header)
            listing = open_listing(answer.manifest, response.payload, run_id=self.run_id, now_s=self.clock())
            check_listing(listing, self.stage, self.bounds.max_bytes, self.bounds.weights_bytes)
        return listing

    async def fetch(self, listing: Listing, sources: Iterable[PeerId]) -> StageState:
        """Return the state of a listing, its chunks from any of the sources.

        Raises:
            PeerUnavailableError: if some chunk could not be had.
            RemoteProtocolError: if the whole is no good; whoever signed for it has been charged.
        """
        self._chunks = {name: self._chunks[name] for name in listing.digests if name in self._chunks}
        self._here_bytes = sum(map(len, self._chunks.values()))
        if self.journal is not None:
            await self.journal.begin(listing)
        await self._find_own(listing)
        await _ChunkFetch(self, listing, list(dict.fromkeys(sources))).run()
        theta = await self._theta(listing)
        checkpoint = b"".join(self._chunks[name] for name in listing.digests)
        self._chunks.clear()  # a bad state is of no use to the next source
        if self.journal is not None:
            await self.journal.end(self.stage)
        claims = listing.state
        certificate = Digest(claims.certificate) if claims.is_certified else None
        state = StageState(self.stage, claims.epoch, claims.num_steps, checkpoint, certificate)
        with self.streams.ledger.charging(listing.manifest.signer):
            if theta != claims.theta_digest:
                raise MalformedError("state-theta", "expected the weights that the manifest names, got others")
            await self.check(state)
        return state

    async def _theta(self, listing: Listing) -> bytes:
        """Return the digest of the weights, letting others run between any two chunks."""
        hasher, start = hashlib.sha256(), listing.state.num_bytes - listing.state.weights_bytes
        for index, name in enumerate(listing.digests):
            if listing.state.span(index)[0] >= start:
                hasher.update(self._chunks[name])
                await trio.lowlevel.checkpoint()
        return hasher.digest()

    async def take(self, listing: Listing, index: int, chunk: bytes) -> None:
        """Keep a chunk that has been checked."""
        name = listing.digests[index]
        self._note(name, chunk)
        if self.journal is not None:
            await self.journal.put(name, chunk)
        self._tell(listing)

    def _note(self, name: Digest, chunk: bytes) -> None:
        self._chunks[name] = chunk
        self._here_bytes += len(chunk)

    def missing(self, listing: Listing) -> Sequence[int]:
        """Return which chunks are not here yet; of equal ones the first."""
        first = {name: index for index, name in reversed(list(enumerate(listing.digests)))}
        return sorted(index for name, index in first.items() if name not in self._chunks)

    def _tell(self, listing: Listing) -> None:
        self.report(StateProgress(listing.manifest.signer, listing.state.num_bytes, self._here_bytes))

    async def _find_own(self, listing: Listing) -> None:
        for index in self.missing(listing):
            chunk = await self.find(listing.digests[index])
            if chunk is None and self.journal is not None:
                chunk = await self.journal.get(listing.digests[index])
            if chunk is not None:
                self._note(listing.digests[index], chunk)
        self._tell(listing)

    async def _resumed(self, sources: Sequence[PeerId]) -> StageState | None:
        listing = None if self.journal is None else await self.journal.unfinished(self.stage, self.clock())
        if listing is None:
            return None
        try:
            check_listing(listing, self.stage, self.bounds.max_bytes, self.bounds.weights_bytes)
            return await self.fetch(listing, sources)
        except _FAILURES as error:
            _log.info("fetch not resumed", extra={"stage": self.stage, "reason": str(error)})
            return None


class _ChunkFetch:
    """Brings the missing chunks of one listing, several at a time."""

    def __init__(self, fetch: StateFetch, listing: Listing, sources: Sequence[PeerId]) -> None:
        self._fetch = fetch
        self._listing = listing
        self._sources = list(sources)
        # The weights, which replicas share, come first: whoever has none of them has nothing for us.
        self._queue = deque(reversed(fetch.missing(listing)))
        self._refused: dict[int, set[PeerId]] = {}  # by chunk, who does not have it
        self._misses: Counter[PeerId] = Counter()
        self._hits: Counter[PeerId] = Counter()
        self._under_way: Counter[PeerId] = Counter()
        self._reasons: dict[PeerId, str] = {}
        self._lacking: int | None = None

    async def run(self) -> None:
        """Return when all is here; raises PeerUnavailableError if some chunk cannot be had."""
        async with trio.open_nursery() as nursery:
            for _ in range(min(PARALLEL_CHUNKS, len(self._queue))):
                nursery.start_soon(self._work, nursery.cancel_scope)
        if self._lacking is not None:
            reasons = "; ".join(f"{peer_id}: {reason}" for peer_id, reason in self._reasons.items())
            raise PeerUnavailableError(
                f"expected chunk {self._lacking} of stage {self._fetch.stage} from somebody, got none ({reasons})"
            )

    async def _work(self, all_of_us: trio.CancelScope) -> None:
        while self._queue and self._lacking is None:
            index = self._queue.popleft()
            source = self._choose(index)
            if source is None:
                self._lacking = index
                all_of_us.cancel()
                return
            if not await self._try(source, index):
                self._queue.append(index)

    def _choose(self, index: int) -> PeerId | None:
        """Return the least busy source that may have the chunk; chunks go round among equals."""
        refused = self._refused.get(index, set())
        able = [peer_id for peer_id in self._sources if peer_id not in refused]
        turn = index % len(able) if able else 0
        return min((*able[turn:], *able[:turn]), key=self._under_way.__getitem__, default=None)

    async def _try(self, source: PeerId, index: int) -> bool:
        """Bring a chunk from a source; False if it was to no avail."""
        request = ChunkRequest(digest=self._listing.digests[index])
        streams = self._fetch.streams
        self._under_way[source] += 1
        try:
            with trio.fail_after(CHUNK_PATIENCE_S):
                response = await streams.call(source, STATE, Request(request.to_fields()))
            chunk = bytes(response.payload)
            with streams.ledger.charging(source):
                check_chunk(self._listing, index, chunk)
        except _FAILURES as error:
            self._reasons[source] = str(error) or "too slow"
            self._pass_over(source, index, error)
            return False
        finally:
            self._under_way[source] -= 1
        self._hits[source] += 1
        await self._fetch.take(self._listing, index, chunk)
        return True

    def _pass_over(self, source: PeerId, index: int, error: Exception) -> None:
        self._refused.setdefault(index, set()).add(source)
        if isinstance(error, RefusedError) and error.reason == "absent":
            self._misses[source] += 1
            if self._hits[source] or self._misses[source] < MAX_MISSES:
                return
        if source in self._sources:
            self._sources.remove(source)
