"""Handing states of stages to others: what we hold, frozen for them, and what we keep for peers elsewhere.

A joiner asks one peer for a manifest and its list of chunks, and then whomever it likes for the chunks, each by its
digest (spec: protocols/spec/state.md).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from iota_p2p.custody.snapshots import Snapshots
from iota_p2p.network.streams import Request, Response
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.custody import ChunkRequest, StateAnswer, StateRequest
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.state_manifest import Listing


async def _nothing(_: Digest) -> bytes | None:
    return None


@dataclass(frozen=True, slots=True)
class StateServer:
    """Answers who asks for states and chunks.

    Attributes:
        run_id: our run.
        snapshots: of the stages we hold.
        best_kept: returns the best state kept of a stage that others hold.
        kept_chunk: reads a chunk that is kept.
    """

    run_id: bytes
    snapshots: Snapshots
    best_kept: Callable[[int], Listing | None] = lambda _: None
    kept_chunk: Callable[[Digest], Awaitable[bytes | None]] = _nothing

    async def answer(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may ask
        """Answer one call; raises RemoteProtocolError if the caller broke a rule."""
        if "digest" in request.header:
            return await self._answer_chunk(ChunkRequest.from_fields(request.header))
        wanted = StateRequest.from_fields(request.header)
        if wanted.run_id != self.run_id:
            raise RefusedError("other-run", f"expected run {self.run_id.hex()}, got {wanted.run_id.hex()}")
        listing = self._kept(wanted.stage) if wanted.kept else (await self.snapshots.fresh(wanted.stage)).listing
        answer = StateAnswer(manifest=listing.manifest.envelope_bytes)
        return Response(answer.to_fields(), listing.packed_digests)

    def _kept(self, stage: int) -> Listing:
        listing = self.best_kept(stage)
        if listing is None:
            raise RefusedError("not-kept", f"expected a stage whose state we keep, got {stage}")
        return listing

    async def _answer_chunk(self, wanted: ChunkRequest) -> Response:
        name = Digest(wanted.digest)
        chunk = self.snapshots.chunk(name)
        if chunk is None:
            chunk = await self.kept_chunk(name)
        if chunk is None:
            raise RefusedError("absent", f"expected a chunk that we have, got {name.hex()}")
        return Response({}, chunk)
