"""Activation: one microbatch between two stages, on `/iota-p2p/activation/2` (spec: protocols/spec/activation.md).

The caller speaks first: a header with the microbatch's id and the receipts of all stages so far, and the encoded
activation as payload. The stream stays open until the callee answers with its backward receipt, the last stage's
loss record and the encoded gradient as payload, or with a signed refusal and no payload. One microbatch is thus one
nested call through all stages, and everything known about a request is on the stack of whoever waits for it.

Checks come in a fixed order, what is cheap before what is dear; each carries the rule's name.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.domains import LOSS_RECORD
from iota_p2p_crypto.envelope import MAX_OVERHEAD_BYTES, Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.chain import Chain, ChainField, StageInput, open_chain
from iota_p2p_protocols.errors import InvalidProofError, MalformedError, StaleError
from iota_p2p_protocols.loss_record import LossRecord, open_loss_record, verify_chain
from iota_p2p_protocols.message import Message
from iota_p2p_protocols.microbatch import MicrobatchId, Stage
from iota_p2p_protocols.receipt import (
    MAX_RECEIPT_BYTES,
    Receipt,
    check_receipt,
    open_receipt,
    seal_receipt,
    sign_receipt,
)
from iota_p2p_protocols.refusal import MAX_REFUSAL_BYTES

# Far more than the microbatches of one epoch through one stage; 18 MB. Beyond it the oldest are forgotten: most of
# those belong to epochs that are refused anyhow, and a replay costs one microbatch's work, no more.
MAX_SEEN = 2**16
# Answers that crossed their caller's giving up; two in a row are rare already. It bounds what a caller can make of one
# microbatch by changing its own receipt.
MAX_ATTEMPTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationTerms:
    """What both ends know before they talk, from the run's spec.

    Attributes:
        run_id: the run.
        num_stages: how many stages it has.
        activation_bytes: exact length of an encoded activation.
        gradient_bytes: exact length of an encoded gradient.
    """

    run_id: bytes
    num_stages: int
    activation_bytes: int
    gradient_bytes: int


class ActivationRequest(Message):
    """The header of a request; the encoded activation follows as payload.

    Attributes:
        microbatch: which microbatch.
        stage: the stage that is asked to work on it.
        chain: envelopes of the forward receipts of all stages before.
    """

    microbatch: MicrobatchId
    stage: Annotated[Stage, Field(gt=0)]
    chain: ChainField

    @model_validator(mode="after")
    def _check_length(self) -> "ActivationRequest":
        if len(self.chain) != self.stage:
            raise ValueError(f"chain must hold {self.stage} receipts, one per stage before")
        return self


class ActivationResponse(Message):
    """The header of an answer: either a receipt with a loss record, and a gradient as payload; or a refusal.

    Attributes:
        receipt: envelope of the callee's backward receipt.
        loss_record: envelope of the last stage's record, passed up unchanged.
        refusal: envelope of the callee's refusal.
    """

    receipt: Annotated[bytes, Field(max_length=MAX_RECEIPT_BYTES)] = b""
    loss_record: Annotated[bytes, Field(max_length=LOSS_RECORD.max_payload_bytes + MAX_OVERHEAD_BYTES)] = b""
    refusal: Annotated[bytes, Field(max_length=MAX_REFUSAL_BYTES)] = b""

    @model_validator(mode="after")
    def _check_either(self) -> "ActivationResponse":
        if (bool(self.receipt), bool(self.loss_record), bool(self.refusal)) not in ((1, 1, 0), (0, 0, 1)):
            raise ValueError("expected a receipt and a loss record, or a refusal")
        return self


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of ours.

    Attributes:
        header: what goes to the next stage with the payload.
        chain: its receipts, our own last; nothing of it is checked again when the answer comes.
    """

    header: ActivationRequest
    chain: Chain


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call brought back, checked.

    Attributes:
        receipt: the callee's backward receipt; its `out_digest` is that of the gradient, so hash nothing twice.
        record: the last stage's record.
        pathway: who did the work, stage by stage.
    """

    receipt: Verified[Receipt]
    record: Verified[LossRecord]
    pathway: tuple[PeerId, ...]


class SeenReceipts:
    """The requests already worked on, by their receipts: a stage does not do the same request twice.

    An honest caller may come again with a microbatch that was answered: its own caller had given up on it while the
    answer was on its way, and now asks once more, or through another replica. Then something in the chain differs.
    """

    def __init__(self, limit: int = MAX_SEEN) -> None:
        self._limit = limit
        self._seen: OrderedDict[tuple[bytes, int, PeerId], tuple[Digest, ...]] = OrderedDict()

    def add(self, chain: Sequence[Verified[Receipt]]) -> None:
        """Note a request; raises StaleError if its last signer sent it before, or the microbatch too many times."""
        key, name = _key(chain[-1]), _name(chain)
        before = self._seen.get(key, ())
        if name in before or len(before) == MAX_ATTEMPTS:
            raise StaleError(
                "activation-replay", f"expected a new request of {chain[-1].signer}, got one again after {len(before)}"
            )
        self._seen[key] = (*before, name)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def forget(self, chain: Sequence[Verified[Receipt]]) -> None:
        """Take a request back that came to nothing, so that its signer may ask again."""
        key, name = _key(chain[-1]), _name(chain)
        rest = tuple(other for other in self._seen.get(key, ()) if other != name)
        if rest:
            self._seen[key] = rest
        else:
            self._seen.pop(key, None)


def _key(last: Verified[Receipt]) -> tuple[bytes, int, PeerId]:
    return last.payload.subject, last.payload.stage, last.signer


def _name(chain: Sequence[Verified[Receipt]]) -> Digest:
    # Receipts do not name their signers: replicas with equal weights sign equal ones.
    return digest(b"".join(receipt.signer.encode("ascii") + receipt.digest for receipt in chain))


def receive_request(
    request: ActivationRequest, payload: bytes, caller: PeerId, terms: ActivationTerms, seen: SeenReceipts
) -> StageInput:
    """Check a request that `refusal.reason_to_refuse` did not decline; return what the stage is to work on.

    `caller` is the peer at the other end of the stream, as the transport's handshake proved it.

    Raises:
        RemoteProtocolError: the subclass and its `rule` say what the caller did wrong.
    """
    # [activation-stage] the run has such a stage
    if request.stage >= terms.num_stages:
        raise MalformedError("activation-stage", f"expected a stage below {terms.num_stages}, got {request.stage}")
    # [activation-bytes] the payload is exactly as long as the run's boundary makes it
    _check_length("activation-bytes", payload, terms.activation_bytes)
    # [receipt-*] the caller itself did the stage before, and this is what it sent
    microbatch = request.microbatch.digest(terms.run_id)
    last = open_receipt(request.chain[-1])
    in_digest = digest(payload)
    check_receipt(last, caller, subject=microbatch, stage=request.stage - 1, direction="forward", out_digest=in_digest)
    # [chain-*] each stage before worked on what the one before it sent
    chain = open_chain(request.chain, microbatch, (last,))
    # [activation-source] the microbatch's source did stage 0
    if chain[0].signer != request.microbatch.source:
        raise InvalidProofError(
            "activation-source", f"expected stage 0 by {request.microbatch.source}, got {chain[0].signer}"
        )
    # [activation-replay] it did not send this before
    seen.add(chain)
    return StageInput(request.microbatch, microbatch, request.stage, chain, in_digest)


def build_request(work: StageInput, payload: bytes, signer: Identity) -> Sent:
    """Sign what our stage did and return what goes to the next stage with the payload."""
    receipt = Receipt(
        subject=work.digest,
        stage=work.stage,
        direction="forward",
        in_digest=work.in_digest,
        out_digest=digest(payload),
    )
    chain = (*work.chain, sign_receipt(receipt, signer))
    envelopes = tuple(link.envelope_bytes for link in chain)
    return Sent(ActivationRequest(microbatch=work.microbatch, stage=work.stage + 1, chain=envelopes), chain)


def build_response(
    work: StageInput, in_digest: bytes, gradient: bytes, record: Verified[LossRecord], signer: Identity
) -> ActivationResponse:
    """Sign what our stage did on the way back and return the header that goes to the caller with the gradient.

    `in_digest` is that of the gradient that came back to us (`Answered.receipt`); the last stage, to which none
    comes, gives the digest of its loss record.
    """
    receipt = Receipt(
        subject=record.digest,
        stage=work.stage,
        direction="backward",
        in_digest=in_digest,
        out_digest=digest(gradient),
    )
    return ActivationResponse(receipt=seal_receipt(receipt, signer), loss_record=record.envelope_bytes)


def receive_response(
    response: ActivationResponse,
    gradient: bytes,
    callee: PeerId,
    *,
    sent: Sent,
    terms: ActivationTerms,
) -> Answered:
    """Check the answer to a request of ours that was not refused.

    Args:
        response: its header.
        gradient: its payload.
        callee: the peer we asked, as the transport proved it.
        sent: what we asked.
        terms: the run's.

    Raises:
        RemoteProtocolError: the subclass and its `rule` say what the callee did wrong.
    """
    request = sent.header
    # [gradient-bytes] the payload is exactly as long as the run's boundary makes it
    _check_length("gradient-bytes", gradient, terms.gradient_bytes)
    # [receipt-*] the callee itself did the stage we asked for, and this is what it sent
    receipt, record = open_receipt(response.receipt), open_loss_record(response.loss_record)
    check_receipt(
        receipt,
        callee,
        subject=record.digest,
        stage=request.stage,
        direction="backward",
        out_digest=digest(gradient),
    )
    # [response-chain] the record is of our microbatch, and what we sent is in it, byte for byte
    if (record.payload.microbatch, record.payload.chain[: request.stage]) != (request.microbatch, request.chain):
        raise InvalidProofError("response-chain", "expected a loss record that continues our chain, got another")
    # [loss-record-*], [chain-*] everything the record says of the microbatch's way holds
    epochs = (request.microbatch.epoch,)
    pathway = verify_chain(record, run_id=terms.run_id, epochs=epochs, num_stages=terms.num_stages, known=sent.chain)
    # [response-pathway] the way leads through the peer we asked
    if pathway[request.stage] != callee:
        raise InvalidProofError(
            "response-pathway", f"expected {callee} at stage {request.stage}, got {pathway[request.stage]}"
        )
    # [response-tail] the last stage went back from this very record
    if request.stage == terms.num_stages - 1 and receipt.payload.in_digest != record.digest:
        raise InvalidProofError(
            "response-tail", f"expected {record.digest.hex()[:16]}, got {receipt.payload.in_digest.hex()[:16]}"
        )
    return Answered(receipt, record, pathway)


def _check_length(rule: str, payload: bytes, expected: int) -> None:
    if len(payload) != expected:
        raise MalformedError(rule, f"expected a payload of {expected} bytes, got {len(payload)}")
