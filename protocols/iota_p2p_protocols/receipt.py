"""Receipts: a peer's signed word that it turned these bytes into those (spec: protocols/spec/activation.md).

A receipt travels with every activation and every gradient, one per stage that was passed, so it is as small as a
signature allows: a list instead of a map, and no run, epoch, sequence or expiry of its own. The microbatch digest
binds run and epoch, and nothing it says ever stops being true.
"""

from typing import Any, ClassVar, Literal, Self

from iota_p2p_crypto.canonical import CanonicalValue
from iota_p2p_crypto.domains import RECEIPT, Domain
from iota_p2p_crypto.envelope import Verified, open_envelope, sign
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError, MalformedError
from iota_p2p_protocols.message import DigestField, Message
from iota_p2p_protocols.microbatch import Stage

MAX_RECEIPT_BYTES = 320  # the envelope of a receipt has 310 (forward) or 311 (backward)

Direction = Literal["forward", "backward"]


class Receipt(Message):
    """What one stage did to one microbatch, in one direction.

    Attributes:
        subject: what it is about. Forward: digest of the microbatch's id. Backward: digest of the loss record that came
            of it, which no other attempt at the microbatch has.
        stage: the stage that did it.
        direction: forward turns activations into activations, backward gradients into gradients.
        in_digest: digest of the payload it worked on. Stage 0 forward: the microbatch's digest. Last stage backward:
            the digest of its loss record.
        out_digest: digest of the payload it sent.
    """

    domain: ClassVar[Domain] = RECEIPT

    subject: DigestField
    stage: Stage
    direction: Direction
    in_digest: DigestField
    out_digest: DigestField

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Validate a decoded list of the fields in their order; raises MalformedError."""
        if type(fields) is not tuple or len(fields) != len(cls.model_fields):
            raise MalformedError(
                "receipt-form", f"expected a list of {len(cls.model_fields)} fields, got {fields!r:.80}"
            )
        return super().from_fields(dict(zip(cls.model_fields, fields, strict=True)))

    def to_fields(self) -> CanonicalValue:
        """Return the fields as the list that is signed."""
        return tuple(self.model_dump().values())


def sign_receipt(receipt: Receipt, signer: Identity) -> Verified[Receipt]:
    """Sign a receipt of ours; nobody need check what we signed ourselves."""
    return sign(RECEIPT, receipt, receipt.to_fields(), signer)


def seal_receipt(receipt: Receipt, signer: Identity) -> bytes:
    """Return the envelope of our receipt."""
    return sign_receipt(receipt, signer).envelope_bytes


def open_receipt(data: bytes) -> Verified[Receipt]:
    """Check a receipt's form and signature; raises RemoteProtocolError."""
    return open_envelope(data, RECEIPT, Receipt.from_fields)


def check_receipt(
    receipt: Verified[Receipt],
    signer: PeerId,
    *,
    subject: bytes,
    stage: int,
    direction: Direction,
    out_digest: bytes,
) -> None:
    """Check that a receipt is about these bytes, from the peer that sent them.

    Raises:
        InvalidSignatureError: if another peer signed it.
        InvalidProofError: if it is about another microbatch or loss record, stage, direction or payload.
    """
    payload = receipt.payload
    # [receipt-signer] the peer at the other end of the stream signed it
    if receipt.signer != signer:
        raise InvalidSignatureError("receipt-signer", f"expected a receipt by {signer}, got one by {receipt.signer}")
    # [receipt-stage] it is of the stage that was to do the work
    if payload.stage != stage:
        raise InvalidProofError("receipt-stage", f"expected stage {stage}, got {payload.stage}")
    # [receipt-direction] it is of the direction the payload goes
    if payload.direction != direction:
        raise InvalidProofError("receipt-direction", f"expected {direction}, got {payload.direction}")
    # [receipt-subject] it is about this microbatch or loss record, and with it this run and epoch
    if payload.subject != subject:
        raise InvalidProofError("receipt-subject", f"expected {subject.hex()[:16]}, got {payload.subject.hex()[:16]}")
    # [receipt-payload] it names the payload that came
    if payload.out_digest != out_digest:
        raise InvalidProofError(
            "receipt-payload", f"expected a payload of {payload.out_digest.hex()[:16]}, got {out_digest.hex()[:16]}"
        )
