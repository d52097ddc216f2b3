"""Showing proofs and asking for them: the stream behind an accusation.

request   {"proof": digest}
response  {} and the proof's bytes as payload
"""

from collections.abc import Callable

import trio

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import MalformedError, PeerUnavailableError, RefusedError
from iota_p2p_protocols.ids import PROOF
from iota_p2p_protocols.message import DigestField, Message

# For 4.4 MiB over a home uplink of 4 Mbit/s, twice.
PATIENCE_S = 20.0


class ProofRequest(Message):
    """Show me the proof.

    Attributes:
        proof: its digest.
    """

    proof: DigestField


async def serve_proofs(streams: Streams, proof_of: Callable[[Digest], bytes | None]) -> None:
    """Show the proofs that we keep to whoever asks, from now on."""

    async def answer(_: PeerId, request: Request) -> Response:
        proof = proof_of(Digest(ProofRequest.from_fields(request.header).proof))
        if proof is None:
            raise RefusedError("unknown-proof", "expected a proof that we keep, got another or an old one")
        return Response({}, proof)

    await streams.serve(PROOF, answer)


async def fetch_proof(streams: Streams, peer_id: PeerId, name: bytes) -> bytes:
    """Return the proof of a digest from a peer; whether it proves anything is not checked.

    Raises:
        PeerUnavailableError: if the peer cannot be reached, does not have it, or is too slow.
        MalformedError: if it sends something else; it has been charged.
    """
    request = ProofRequest(proof=name)
    try:
        with trio.fail_after(PATIENCE_S):
            response = await streams.call(peer_id, PROOF, Request(request.to_fields()))
    except (RefusedError, trio.TooSlowError) as error:
        raise PeerUnavailableError(f"expected {peer_id} to show a proof: {error}") from error
    proof = bytes(response.payload)
    with streams.ledger.charging(peer_id):
        if digest(proof) != name:
            raise MalformedError("proof-digest", f"expected the proof {name.hex()[:16]}, got other bytes")
    return proof
