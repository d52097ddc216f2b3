"""Loss records: the last stage's signed loss of one microbatch with the whole chain that led to it.

A record stands by itself: with the run id alone anyone can say which peers the microbatch passed, that each worked
on what the one before it sent, and what came out. Only the loss itself is the last stage's bare word; validators
recompute samples of it (spec: protocols/spec/activation.md).
"""

import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import LOSS_RECORD, Domain
from iota_p2p_crypto.envelope import Verified, open_envelope, sign
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.chain import Chain, ChainField, StageInput, chain_end, open_chain, signers_of
from iota_p2p_protocols.errors import InvalidProofError, StaleError, WrongRunError
from iota_p2p_protocols.message import DigestField, Message
from iota_p2p_protocols.microbatch import MicrobatchId

MICRONATS_PER_NAT = 10**6  # a microbatch's own noise is a hundred thousand times larger than one
# 100 nats. Guessing over four million tokens costs 15.3; a model much worse than that has diverged, and a bound keeps
# one liar from moving every mean.
MAX_LOSS_MICRONATS = 100 * MICRONATS_PER_NAT
MAX_TIME_MS = 2**51  # the year 73326; beyond it arithmetic is somebody's joke
MAX_TOKENS = 2**40  # per microbatch; keeps sums of loss * tokens far from any overflow


class LossRecord(Message):
    """What the last stage says of a microbatch.

    Attributes:
        run_id: the run it belongs to.
        microbatch: which microbatch.
        chain: envelopes of the forward receipts of all stages but the last.
        in_digest: digest of the payload the last stage worked on.
        loss_micronats: mean loss per token in millionths of a nat.
        num_tokens: how many tokens that is the mean of.
        time_ms: when, Unix milliseconds by the signer's clock: losses fall, so only those of one time compare.
    """

    domain: ClassVar[Domain] = LOSS_RECORD

    run_id: DigestField
    microbatch: MicrobatchId
    chain: ChainField
    in_digest: DigestField
    loss_micronats: Annotated[int, Field(ge=0, le=MAX_LOSS_MICRONATS)]
    num_tokens: Annotated[int, Field(gt=0, le=MAX_TOKENS)]
    time_ms: Annotated[int, Field(ge=0, le=MAX_TIME_MS)]


def loss_micronats(loss_nats: float) -> int | None:
    """Return a loss as a record states it; None if it is no loss a record can state.

    The last stage then answers with the refusal `no-loss`: it cannot know which stage before it broke the numbers.
    """
    if not math.isfinite(loss_nats) or not 0 <= loss_nats * MICRONATS_PER_NAT <= MAX_LOSS_MICRONATS:
        return None
    return round(loss_nats * MICRONATS_PER_NAT)


@dataclass(frozen=True, slots=True)
class Loss:
    """A mean loss, of how many tokens and when; see `LossRecord`."""

    micronats: int
    num_tokens: int
    time_ms: int


def sign_loss_record(work: StageInput, loss: Loss, *, run_id: bytes, signer: Identity) -> Verified[LossRecord]:
    """Sign the last stage's record of its work; the loss comes from `loss_micronats`."""
    record = LossRecord(
        run_id=run_id,
        microbatch=work.microbatch,
        chain=tuple(receipt.envelope_bytes for receipt in work.chain),
        in_digest=work.in_digest,
        loss_micronats=loss.micronats,
        num_tokens=loss.num_tokens,
        time_ms=loss.time_ms,
    )
    return sign(LOSS_RECORD, record, record.to_fields(), signer)


def seal_loss_record(work: StageInput, loss: Loss, *, run_id: bytes, signer: Identity) -> bytes:
    """Return the envelope of `sign_loss_record`."""
    return sign_loss_record(work, loss, run_id=run_id, signer=signer).envelope_bytes


def open_loss_record(data: bytes) -> Verified[LossRecord]:
    """Check a record's form and the last stage's signature, but not its chain; raises RemoteProtocolError."""
    return open_envelope(data, LOSS_RECORD, LossRecord.from_fields)


def verify_chain(
    record: Verified[LossRecord], *, run_id: bytes, epochs: Container[int], num_stages: int, known: Chain = ()
) -> tuple[PeerId, ...]:
    """Check everything a record says of its microbatch's way; return its pathway, one peer per stage.

    Args:
        record: the record.
        run_id: the run it must belong to.
        epochs: the epochs it may belong to: `live_epochs` while training, one epoch in an audit.
        num_stages: stages of the run.
        known: receipts opened before; see `open_chain`.

    Raises:
        WrongRunError: if it belongs to another run.
        StaleError: if it belongs to another epoch.
        InvalidProofError: if its chain is not that of all stages but the last, each linked to the next.
        RemoteProtocolError: if a receipt is malformed or its signature wrong.
    """
    payload = record.payload
    # [loss-record-run] it is of this run
    if payload.run_id != run_id:
        raise WrongRunError("loss-record-run", f"expected {run_id.hex()[:16]}, got {payload.run_id.hex()[:16]}")
    # [loss-record-epoch] it is of an epoch in question
    if payload.microbatch.epoch not in epochs:
        raise StaleError("loss-record-epoch", f"expected one of {epochs}, got {payload.microbatch.epoch}")
    # [loss-record-stages] every stage but the last has its receipt
    if len(payload.chain) != num_stages - 1:
        raise InvalidProofError("loss-record-stages", f"expected {num_stages - 1} receipts, got {len(payload.chain)}")
    # [chain-*] and each receipt is the next link
    microbatch = payload.microbatch.digest(run_id)
    chain = open_chain(payload.chain, microbatch, known)
    # [loss-record-link] the last stage worked on what the one before it sent
    if payload.in_digest != chain_end(chain, microbatch):
        raise InvalidProofError(
            "loss-record-link",
            f"expected input {chain_end(chain, microbatch).hex()[:16]}, got {payload.in_digest.hex()[:16]}",
        )
    pathway = (*signers_of(chain), record.signer)
    # [loss-record-source] the microbatch's source did stage 0: nobody starts microbatches in another's name
    if pathway[0] != payload.microbatch.source:
        raise InvalidProofError("loss-record-source", f"expected {payload.microbatch.source}, got {pathway[0]}")
    return pathway
