r"""Showing evidence and asking for it: the stream behind a commitment.

request   {"commitment": digest, "start": index of the first record wanted}
response  {"count": records in the payload}, payload (length 4 bytes big-endian || envelope)*
"""

from collections.abc import Iterator
from typing import Annotated

import trio
from pydantic import Field

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p.validation.evidence_keeper import EvidenceKeeper
from iota_p2p.validation.series import parts_of, put
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import MalformedError, PeerUnavailableError, RefusedError
from iota_p2p_protocols.ids import EVIDENCE
from iota_p2p_protocols.message import DigestField, Message
from iota_p2p_protocols.scoring.evidence import MAX_RECORDS, EvidenceCommitment

# For 8 MiB over a home uplink of 4 Mbit/s, twice.
PATIENCE_S = 40.0

Index = Annotated[int, Field(ge=0, le=MAX_RECORDS)]


class EvidenceRequest(Message):
    """Show me the records behind your commitment.

    Attributes:
        commitment: its digest.
        start: index of the first one wanted.
    """

    commitment: DigestField
    start: Index


class EvidenceAnswer(Message):
    """As many as fit are the payload.

    Attributes:
        count: how many.
    """

    count: Index


async def serve_evidence(streams: Streams, keeper: EvidenceKeeper) -> None:
    """Show our evidence to whoever asks, from now on."""

    async def answer(_: PeerId, request: Request) -> Response:
        wanted = EvidenceRequest.from_fields(request.header)
        envelopes = keeper.shown(Digest(wanted.commitment))
        if envelopes is None:
            raise RefusedError(
                "unknown-evidence", "expected a commitment of ours that we keep, got another or an old one"
            )
        count, payload = 0, bytearray()
        for envelope in envelopes[wanted.start :]:
            if not put(payload, envelope, EVIDENCE.max_payload_bytes):
                break
            count += 1
        return Response(EvidenceAnswer(count=count).to_fields(), bytes(payload))

    await streams.serve(EVIDENCE, answer)


async def fetch_evidence(streams: Streams, commitment: Verified[EvidenceCommitment]) -> list[bytes]:
    """Return the records that a holder shows for its commitment, unchecked: `open_evidence` is what checks them.

    Raises:
        PeerUnavailableError: if it cannot be reached, declines, or is too slow.
        MalformedError: if it sends something else; it has been charged.
    """
    envelopes: list[bytes] = []
    while len(envelopes) < commitment.payload.num_records:
        request = EvidenceRequest(commitment=commitment.digest, start=len(envelopes))
        try:
            with trio.fail_after(PATIENCE_S):
                response = await streams.call(commitment.signer, EVIDENCE, Request(request.to_fields()))
        except (RefusedError, trio.TooSlowError) as error:
            raise PeerUnavailableError(f"expected {commitment.signer} to show its evidence: {error}") from error
        with streams.ledger.charging(commitment.signer):
            more = list(envelopes_in(bytes(response.payload)))
            count = EvidenceAnswer.from_fields(response.header).count
            if not more or len(more) != count or len(envelopes) + count > commitment.payload.num_records:
                raise MalformedError(
                    "evidence-answer", f"expected some of {commitment.payload.num_records} records, got {count}"
                )
        envelopes += more
    return envelopes


def envelopes_in(payload: bytes) -> Iterator[bytes]:
    """Cut a payload into its records; raises MalformedError."""
    return parts_of(payload, "evidence-form", "records")
