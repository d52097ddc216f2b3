"""Handing a stage's state to a peer that takes the stage over too.

The holder freezes its state once and keeps the copy until it is fetched or nobody asks for it any more; training
goes on meanwhile. The joiner takes the chunks, checks each by the manifest's digest and the whole by what a stage of
this run must look like. If the holder dies it goes to the next; chunks that both have in common are not sent again.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p.run.spec import RunId
from iota_p2p.training.stage_state import StageState
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.fetch import (
    SNAPSHOT_ID_BYTES,
    ChunkRequest,
    StateManifest,
    StateRequest,
    cut_chunk,
    digest_of_chunk,
)
from iota_p2p_protocols.ids import STATE

# Copies of whole states kept at a time, each as large as the stage's weights and moments together: many of a small
# model, whose lone holder hands all its stages over at once; of a large one a second only while it fits this.
MAX_SNAPSHOTS = 64
MAX_SNAPSHOT_BYTES = 2 * 2**30
# Peers that ask within this time of each other get the same copy: joiners come in crowds.
SHARE_S = 5.0
# A copy that nobody has asked for any more since then is dropped: its joiner is done or dead.
IDLE_S = 30.0
# A copy is dropped after the time that a joiner needs at this rate, so that it cannot be held for ever.
SLOWEST_BYTES_PER_S = 256 * 1024
_LEAST_LIFE_S = 60.0

TakeState = Callable[[int], Awaitable[StageState | None]]


async def serve_states(streams: Streams, run_id: RunId, take: TakeState) -> None:
    """Answer others from now on; `take` freezes a stage (on the compute lane), or returns None if we do not hold it."""
    await streams.serve(STATE, StateServer(run_id, take).answer)


@dataclass(slots=True)
class _Snapshot:
    """A frozen state and who may still want it."""

    manifest: StateManifest
    digests: bytes
    checkpoint: bytes
    taken_s: float
    asked_s: float

    def is_over(self, now_s: float) -> bool:
        life_s = _LEAST_LIFE_S + len(self.checkpoint) / SLOWEST_BYTES_PER_S
        return now_s > self.asked_s + IDLE_S or now_s > self.taken_s + life_s


@dataclass(slots=True)
class StateServer:
    """Freezes states and serves their chunks.

    Attributes:
        run_id: our run.
        take: freezes a stage.
    """

    run_id: RunId
    take: TakeState
    _snapshots: dict[bytes, _Snapshot] = field(default_factory=dict)
    _taking: trio.Lock = field(default_factory=trio.Lock)  # one at a time: the bound counts what is there

    async def answer(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may ask
        """Answer one call; raises RemoteProtocolError if the caller broke a rule."""
        self._drop_old()
        if "index" in request.header:
            return self._answer_chunk(ChunkRequest.from_fields(request.header))
        wanted = StateRequest.from_fields(request.header)
        if wanted.run_id != self.run_id:
            raise RefusedError("other-run", f"expected run {self.run_id.hex()}, got {wanted.run_id.hex()}")
        async with self._taking:
            snapshot = self._shared(wanted.stage) or await self._freeze(wanted.stage)
        snapshot.asked_s = trio.current_time()
        return Response(snapshot.manifest.to_fields(), snapshot.digests)

    def _answer_chunk(self, wanted: ChunkRequest) -> Response:
        snapshot = self._snapshots.get(wanted.snapshot)
        if snapshot is None:
            raise RefusedError("unknown-snapshot", "expected a snapshot that we keep, got another or an old one")
        snapshot.asked_s = trio.current_time()
        return Response({}, cut_chunk(snapshot.checkpoint, wanted.index))

    def _drop_old(self) -> None:
        now_s = trio.current_time()
        for name in [name for name, snapshot in self._snapshots.items() if snapshot.is_over(now_s)]:
            del self._snapshots[name]

    def _shared(self, stage: int) -> _Snapshot | None:
        """Return a copy of the stage that was made a moment ago."""
        oldest_s = trio.current_time() - SHARE_S
        fresh = [s for s in self._snapshots.values() if s.manifest.stage == stage and s.taken_s >= oldest_s]
        return fresh[-1] if fresh else None

    async def _freeze(self, stage: int) -> _Snapshot:
        kept_bytes = sum(len(snapshot.checkpoint) for snapshot in self._snapshots.values())
        if len(self._snapshots) >= MAX_SNAPSHOTS or kept_bytes >= MAX_SNAPSHOT_BYTES:
            raise RefusedError("busy", f"expected room for another snapshot, got {kept_bytes} bytes being fetched")
        state = await self.take(stage)
        if state is None:
            raise RefusedError("not-held", f"expected a stage that we hold, got {stage}")
        manifest = StateManifest(
            snapshot=secrets.token_bytes(SNAPSHOT_ID_BYTES),
            stage=stage,
            epoch=state.epoch,
            num_steps=state.num_steps,
            num_bytes=len(state.checkpoint),
        )
        digests = await _digests(state.checkpoint, manifest.num_chunks)
        now_s = trio.current_time()
        snapshot = _Snapshot(manifest, b"".join(digests), state.checkpoint, now_s, now_s)
        self._snapshots[manifest.snapshot] = snapshot
        return snapshot


async def _digests(checkpoint: bytes, num_chunks: int) -> list[Digest]:
    """Hash all chunks, letting others run between any two."""
    digests = []
    for index in range(num_chunks):
        digests.append(digest_of_chunk(checkpoint, index))
        await trio.lowlevel.checkpoint()
    return digests
