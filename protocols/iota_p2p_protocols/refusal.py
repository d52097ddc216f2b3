"""Refusals: a replica's signed word that it did not take a microbatch, so that the caller may pass it over.

Replicas are drawn, not chosen (`routing`). A caller that takes a later one shows the refusals of those before it;
skipping without one is visible (spec: protocols/spec/activation.md).
"""

from collections.abc import Container
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from iota_p2p_crypto.domains import REFUSAL, Domain
from iota_p2p_crypto.envelope import Verified, open_envelope, seal
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError
from iota_p2p_protocols.message import DigestField, Message
from iota_p2p_protocols.microbatch import MicrobatchId, Stage, live_epochs

MAX_REFUSAL_BYTES = 320  # the envelope of the longest has 300
MAX_QUEUE_LENGTH = 2**16 - 1  # a longer queue is refused far earlier; more digits would only be noise

# busy: no free slot. draining: it leaves the stage or closes the epoch. wrong-epoch: its epoch is not the caller's.
# no-such-stage: it does not hold that stage. no-loss: the last stage got no finite loss from what came.
Reason = Literal["busy", "draining", "wrong-epoch", "no-such-stage", "no-loss"]


class Refusal(Message):
    """Why a replica did not take a microbatch.

    Attributes:
        microbatch: digest of the microbatch's id, which binds run and epoch.
        stage: the stage that was asked for.
        reason: why not.
        queue_length: microbatches waiting for that stage, for the caller's patience.
    """

    domain: ClassVar[Domain] = REFUSAL

    microbatch: DigestField
    stage: Stage
    reason: Reason
    queue_length: Annotated[int, Field(ge=0, le=MAX_QUEUE_LENGTH)]


def reason_to_refuse(
    microbatch: MicrobatchId, stage: int, *, epoch: int, held: Container[int], draining: bool, free_slots: int
) -> Reason | None:
    """Decide whether a stage takes a microbatch; None if it does.

    The order puts what will not change by waiting first, so that `busy` always means: later, perhaps.
    """
    if microbatch.epoch not in live_epochs(epoch):
        return "wrong-epoch"
    if stage not in held:
        return "no-such-stage"
    if draining:
        return "draining"
    return None if free_slots > 0 else "busy"


def seal_refusal(refusal: Refusal, signer: Identity) -> bytes:
    """Return the envelope of our refusal."""
    return seal(REFUSAL, refusal.to_fields(), (signer,))


def open_refusal(data: bytes) -> Verified[Refusal]:
    """Check a refusal's form and signature; raises RemoteProtocolError."""
    return open_envelope(data, REFUSAL, Refusal.from_fields)


def check_refusal(refusal: Verified[Refusal], signer: PeerId, microbatch: bytes, stage: int) -> None:
    """Check that a refusal answers our request.

    Raises:
        InvalidSignatureError: if another peer signed it.
        InvalidProofError: if it refuses something else.
    """
    # [refusal-signer] the peer we asked signed it
    if refusal.signer != signer:
        raise InvalidSignatureError("refusal-signer", f"expected a refusal by {signer}, got one by {refusal.signer}")
    # [refusal-request] it refuses what we asked
    if (refusal.payload.microbatch, refusal.payload.stage) != (microbatch, stage):
        raise InvalidProofError(
            "refusal-request",
            f"expected a refusal of {microbatch.hex()[:16]} at stage {stage}, "
            f"got {refusal.payload.microbatch.hex()[:16]} at {refusal.payload.stage}",
        )
