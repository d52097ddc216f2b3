"""Fetching a stage's state from its holders: the joiner's side of `state_transfer`."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p.network.streams import Request, Streams
from iota_p2p.run.spec import RunId
from iota_p2p.training.stage_state import StageState
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.fetch import ChunkRequest, StateManifest, StateRequest, check_chunk, open_manifest
from iota_p2p_protocols.ids import STATE

# Chunks under way: enough to keep the link full while others are checked; 16 MiB.
PARALLEL_CHUNKS = 4
# For freezing and hashing a state: 40 GB at 1.5 GB/s, behind other work.
MANIFEST_PATIENCE_S = 60.0
# For a chunk of 4 MiB: four at once over a home uplink of 4 Mbit/s take half of it.
CHUNK_PATIENCE_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StateProgress:
    """How far a fetch is.

    Attributes:
        source: whom the state comes from.
        num_bytes: of the whole.
        fetched_bytes: of those, the ones here.
    """

    source: PeerId
    num_bytes: int
    fetched_bytes: int


@dataclass(slots=True)
class StateFetch:
    """Fetches one stage's state.

    Attributes:
        streams: how holders are called.
        run_id: our run.
        stage: which stage.
        max_bytes: the longest checkpoint it can have (`stage_state.max_state_bytes`).
        check: raises RemoteProtocolError for a state that is no good (`stage_state.check_state` on the lane).
        report: told of the progress.
    """

    streams: Streams
    run_id: RunId
    stage: int
    max_bytes: int
    check: Callable[[StageState], Awaitable[None]]
    report: Callable[[StateProgress], None] = lambda _: None
    _chunks: dict[Digest, bytes] = field(default_factory=dict)  # of the source before, for the next

    async def run(self, sources: Sequence[PeerId]) -> StageState:
        """Return the state of the first source that gives a good one, trying them in order.

        Chunks that came are kept for the next source, and for another call.

        Raises:
            PeerUnavailableError: if none of them did; the reasons are in its text.
        """
        reasons = []
        for source in sources:
            try:
                return await self._fetch_from(source)
            except* (PeerUnavailableError, RefusedError, RemoteProtocolError, trio.TooSlowError) as group:
                reason = str(_first(group)) or "too slow"
            _log.warning("state not fetched", extra={"stage": self.stage, "peer": source, "reason": reason})
            reasons.append(f"{source}: {reason}")
        tried = "; ".join(reasons) or "nobody to ask"
        raise PeerUnavailableError(f"expected a holder of stage {self.stage} to send its state, got none ({tried})")

    async def _fetch_from(self, source: PeerId) -> StageState:
        request = StateRequest(run_id=self.run_id, stage=self.stage)
        with trio.fail_after(MANIFEST_PATIENCE_S):
            response = await self.streams.call(source, STATE, Request(request.to_fields()))
        with self.streams.ledger.charging(source):
            manifest = StateManifest.from_fields(response.header)
            digests = open_manifest(manifest, bytes(response.payload), request, self.max_bytes)
        self._chunks = {name: self._chunks[name] for name in digests if name in self._chunks}
        await self._fetch_chunks(source, manifest, digests)
        checkpoint = b"".join(self._chunks[name] for name in digests)
        state = StageState(self.stage, manifest.epoch, manifest.num_steps, checkpoint)
        self._chunks.clear()  # kept until here only for another source; a bad state is of no use to it
        with self.streams.ledger.charging(source):
            await self.check(state)
        return state

    async def _fetch_chunks(self, source: PeerId, manifest: StateManifest, digests: Sequence[Digest]) -> None:
        queue = iter([index for index, name in enumerate(digests) if name not in self._chunks])
        fetched_bytes = sum(map(len, self._chunks.values()))
        self.report(StateProgress(source, manifest.num_bytes, fetched_bytes))

        async def fetch_some() -> None:
            nonlocal fetched_bytes
            for index in queue:
                num_bytes = await self._fetch_chunk(source, manifest, index, digests[index])
                fetched_bytes += num_bytes
                self.report(StateProgress(source, manifest.num_bytes, fetched_bytes))

        async with trio.open_nursery() as nursery:
            for _ in range(PARALLEL_CHUNKS):
                nursery.start_soon(fetch_some)

    async def _fetch_chunk(self, source: PeerId, manifest: StateManifest, index: int, expected: Digest) -> int:
        """Fetch and check a chunk; return its length."""
        request = ChunkRequest(snapshot=manifest.snapshot, index=index)
        with trio.fail_after(CHUNK_PATIENCE_S):
            response = await self.streams.call(source, STATE, Request(request.to_fields()))
        chunk = bytes(response.payload)
        with self.streams.ledger.charging(source):
            check_chunk(manifest, index, expected, chunk)
        self._chunks[expected] = chunk
        return len(chunk)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
