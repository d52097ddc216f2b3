"""Fetching a run's shards from several peers at once.

Every shard comes from one peer, so that a wrong one has one author: he is charged and not asked again. Whoever
dies, is slow or lacks a shard rests a while, and the shard goes to the next. What is in the store stays there, so
a fetch that was interrupted goes on where it stopped.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from iota_p2p.network.streams import Request, Streams
from iota_p2p.run.shards import ShardStore, file_sizes
from iota_p2p.run.spec import RunSpec, ShardRef
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError, RemoteProtocolError, UserError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.fetch import PIECE_BYTES, PieceAnswer, PieceRequest, check_piece
from iota_p2p_protocols.ids import SHARD

# Shards under way: enough to hide round trips and use several uplinks; at most 64 MiB are held for it.
PARALLEL_SHARDS = 4
# For one piece of 4 MiB: a home uplink of 4 Mbit/s sends four of them at once in half that.
PATIENCE_S = 60.0
# A peer that failed, or lacks a shard, is asked again after this; it may be fetching the shard itself.
REST_S = 2.0
# Between looks for somebody to ask, when there is nobody.
LOOK_AGAIN_S = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far a fetch is.

    Attributes:
        num_shards: of the run.
        num_present: of those, the ones in the store and whole.
        fetched_bytes: what came over the network for them.
    """

    num_shards: int
    num_present: int = 0
    fetched_bytes: int = 0


async def fetch_shards(
    streams: Streams,
    sources: Callable[[], Sequence[PeerId]],
    spec: RunSpec,
    store: ShardStore,
    report: Callable[[ShardProgress], None] = lambda _: None,
) -> None:
    """Bring all shards of a run into the store, held-out ones first.

    `sources` returns who is in the run now, without ourselves. Goes on until all is here: patience is the caller's,
    and cancelling loses no more than the shards under way. Shards on disk are read once to see that they are whole.

    Raises:
        UserError: if the store's disk is full or not writable (inside an exception group).
    """
    refs = list(dict.fromkeys((*spec.data.heldout, *spec.data.train)))
    fetch = _ShardFetch(streams, sources, store, report, ShardProgress(len(refs)))
    await fetch.run(refs)


class _ShardFetch:
    """One fetch: the shards still to come, and what is known of the sources."""

    def __init__(
        self,
        streams: Streams,
        sources: Callable[[], Sequence[PeerId]],
        store: ShardStore,
        report: Callable[[ShardProgress], None],
        progress: ShardProgress,
    ) -> None:
        self._streams = streams
        self._sources = sources
        self._store = store
        self._report = report
        self._progress = progress
        self._queue: deque[ShardRef] = deque()
        self._liars: set[PeerId] = set()
        self._resting_until_s: dict[tuple[PeerId, str], float] = {}  # by peer and shard, "" for all of them
        self._under_way: Counter[PeerId] = Counter()

    async def run(self, refs: Sequence[ShardRef]) -> None:
        for ref in refs:
            if self._is_whole(ref):
                self._count()
            else:
                self._queue.append(ref)
            await trio.lowlevel.checkpoint()  # a large store takes a minute to read
        async with trio.open_nursery() as nursery:
            for _ in range(min(PARALLEL_SHARDS, len(self._queue))):
                nursery.start_soon(self._work)

    def _is_whole(self, ref: ShardRef) -> bool:
        if not self._store.has(ref):
            return False
        try:
            self._store.read(ref)
        except (MalformedError, OSError) as error:
            _log.warning("shard damaged on disk, fetched again", extra={"shard": ref.digest, "reason": str(error)})
            return False
        return True

    def _count(self, num_bytes: int = 0) -> None:
        progress = self._progress
        self._progress = replace(
            progress,
            num_present=progress.num_present + 1,
            fetched_bytes=progress.fetched_bytes + num_bytes,
        )
        self._report(self._progress)

    async def _work(self) -> None:
        while self._queue:
            ref = self._queue.popleft()
            source = self._choose(ref)
            if source is None:
                self._queue.append(ref)  # somebody may have the next
                await trio.sleep(LOOK_AGAIN_S)
            elif not await self._try(source, ref):
                self._queue.append(ref)

    def _choose(self, ref: ShardRef) -> PeerId | None:
        """Return the least busy peer that may have the shard, the first in the caller's order among equals."""
        now_s = trio.current_time()
        candidates = [
            peer_id
            for peer_id in self._sources()
            if peer_id not in self._liars
            and self._resting_until_s.get((peer_id, ""), now_s) <= now_s
            and self._resting_until_s.get((peer_id, ref.digest), now_s) <= now_s
        ]
        return min(candidates, key=self._under_way.__getitem__, default=None)

    async def _try(self, source: PeerId, ref: ShardRef) -> bool:
        """Fetch a shard from a peer into the store; False if it was to no avail."""
        self._under_way[source] += 1
        try:
            data = await self._fetch(source, ref)
            with self._streams.ledger.charging(source):
                self._store.add(data, ref)
        except RemoteProtocolError as error:
            _log.warning("source of shards dropped", extra={"peer": source, "rule": error.rule, "reason": str(error)})
            self._liars.add(source)
            return False
        except RefusedError as error:
            which = ref.digest if error.reason == "absent" else ""
            self._resting_until_s[source, which] = trio.current_time() + REST_S
            return False
        except (PeerUnavailableError, trio.TooSlowError):
            self._resting_until_s[source, ""] = trio.current_time() + REST_S
            return False
        except OSError as error:
            raise UserError(f"cannot write to {self._store.folder}: {error.strerror}") from error
        finally:
            self._under_way[source] -= 1
        self._count(len(data))
        return True

    async def _fetch(self, source: PeerId, ref: ShardRef) -> bytes:
        pieces: list[bytes] = []
        total_bytes = 1
        while len(pieces) * PIECE_BYTES < total_bytes:
            request = PieceRequest(digest=bytes.fromhex(ref.digest), index=len(pieces))
            with trio.fail_after(PATIENCE_S):
                response = await self._streams.call(source, SHARD, Request(request.to_fields()))
            with self._streams.ledger.charging(source):
                answer = PieceAnswer.from_fields(response.header)
                if not pieces:
                    total_bytes = _checked_size(answer.total_bytes, ref)
                check_piece(answer, request.index, len(response.payload), total_bytes)
            pieces.append(bytes(response.payload))
        return b"".join(pieces)


def _checked_size(total_bytes: int, ref: ShardRef) -> int:
    if total_bytes not in file_sizes(ref):
        raise MalformedError("shard-size", f"expected a file of {ref.num_tokens} ids, got {total_bytes} bytes")
    return total_bytes
