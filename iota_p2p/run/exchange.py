"""Serving a run to others: its spec and its data shards; and fetching the spec of a run.

A joiner needs no more than one peer's address, and the run id to be safe: the spec is checked against it, the
shards against the digests in the spec (`shard_fetch`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunId, RunSpec, ShardRef
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.fetch import PieceAnswer, PieceRequest, SpecAnswer, SpecRequest, cut_piece
from iota_p2p_protocols.ids import NO_RUN, RUN_SPEC, SHARD

_log = logging.getLogger(__name__)


async def serve_run(streams: Streams, spec: RunSpec, store: ShardStore, epoch_of: Callable[[], int]) -> None:
    """Answer others from now on; shards are served as soon as they are in the store."""
    refs = {bytes.fromhex(ref.digest): ref for ref in (*spec.data.heldout, *spec.data.train)}
    server = _RunServer(spec.run_id, spec.to_bytes(), refs, store, epoch_of)
    await streams.serve(RUN_SPEC, server.answer_spec)
    await streams.serve(SHARD, server.answer_piece)


async def fetch_spec(streams: Streams, peer_id: PeerId, expected: RunId | None) -> tuple[RunSpec, int]:
    """Return the spec of a peer's run, and the epoch it believes the run to be in.

    Without an `expected` run id the peer is trusted to choose the run.

    Raises:
        PeerUnavailableError: if it does not answer, or is in no run.
        RefusedError: if it is in another run.
        RemoteProtocolError: if what it sent is not the spec of that run, or of any; it has been charged.
    """
    request = SpecRequest(run_id=NO_RUN if expected is None else expected)
    response = await streams.call(peer_id, RUN_SPEC, Request(request.to_fields()))
    with streams.ledger.charging(peer_id):
        answer = SpecAnswer.from_fields(response.header)
        return RunSpec.from_bytes(bytes(response.payload), expected=expected), answer.epoch


@dataclass(frozen=True, slots=True)
class _RunServer:
    """Answers what a run is and what is in its shards."""

    run_id: RunId
    spec_bytes: bytes
    refs: Mapping[bytes, ShardRef]
    store: ShardStore
    epoch_of: Callable[[], int]

    async def answer_spec(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may ask
        wanted = SpecRequest.from_fields(request.header).run_id
        if wanted not in (NO_RUN, self.run_id):
            raise RefusedError("other-run", f"expected a request for run {self.run_id.hex()}, got {wanted.hex()}")
        return Response(SpecAnswer(epoch=self.epoch_of()).to_fields(), self.spec_bytes)

    async def answer_piece(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may ask
        piece = PieceRequest.from_fields(request.header)
        data = self._read(piece.digest)
        return Response(PieceAnswer(total_bytes=len(data)).to_fields(), cut_piece(data, piece.index))

    def _read(self, name: bytes) -> bytes:
        """Return a shard that is whole: a damaged one would cost us our good name with whoever asked."""
        if name not in self.refs:
            raise RefusedError("absent", "expected the digest of a shard of our run, got another")
        try:
            return self.store.read(self.refs[name])
        except PeerUnavailableError as error:
            raise RefusedError("absent", str(error)) from error
        except (MalformedError, OSError) as error:
            _log.warning("shard damaged on disk", extra={"shard": name.hex(), "reason": str(error)})
            raise RefusedError("absent", "expected a readable shard on our disk, got a damaged one") from error
