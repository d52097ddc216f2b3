"""Chains: the forward receipts of stages 0, 1, 2, ... of one microbatch, each linked to the next by a digest.

Every stage checks the whole chain before it works, not only its last link: a stage that passed a broken chain on
would be the next one to be blamed for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.advert import MAX_STAGES
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.receipt import MAX_RECEIPT_BYTES, Receipt, open_receipt

# One receipt per stage before the last: the last stage sends nothing on and signs the loss record instead.
ChainField = Annotated[
    tuple[Annotated[bytes, Field(max_length=MAX_RECEIPT_BYTES)], ...], Field(max_length=MAX_STAGES - 1)
]
Chain = tuple[Verified[Receipt], ...]


@dataclass(frozen=True, slots=True)
class StageInput:
    """What a stage is to work on, checked.

    Attributes:
        microbatch: which microbatch.
        digest: its digest in this run.
        stage: the stage that is to work on it.
        chain: the receipts of all stages before.
        in_digest: digest of the payload that came; for stage 0 the microbatch's digest.
    """

    microbatch: MicrobatchId
    digest: Digest
    stage: int
    chain: Chain
    in_digest: Digest


def source_input(microbatch: MicrobatchId, run_id: bytes) -> StageInput:
    """Return what stage 0 works on when it starts a microbatch of its own."""
    digest = microbatch.digest(run_id)
    return StageInput(microbatch, digest, 0, (), digest)


def open_chain(envelopes: Sequence[bytes], microbatch: bytes, known: Chain = ()) -> Chain:
    """Check the receipts of stages 0 to len(envelopes) - 1 of one microbatch.

    Args:
        envelopes: the receipts in the order of their stages.
        microbatch: digest of the microbatch's id.
        known: receipts opened before; where the bytes are the same, the signature is not checked again.

    Raises:
        RemoteProtocolError: if a receipt is malformed or its signature wrong.
        InvalidProofError: if one is not the next link.
    """
    opened = {receipt.envelope_bytes: receipt for receipt in known}
    chain: list[Verified[Receipt]] = []
    link = microbatch
    for stage, envelope in enumerate(envelopes):
        receipt = opened.get(envelope) or open_receipt(envelope)
        _check_link(receipt.payload, microbatch, stage, link)
        chain.append(receipt)
        link = receipt.payload.out_digest
    return tuple(chain)


def chain_end(chain: Chain, microbatch: bytes) -> bytes:
    """Return the digest of the payload that leaves a chain: what the next stage works on."""
    return chain[-1].payload.out_digest if chain else microbatch


def signers_of(chain: Chain) -> tuple[PeerId, ...]:
    """Return who did the work, stage by stage."""
    return tuple(receipt.signer for receipt in chain)


def _check_link(receipt: Receipt, microbatch: bytes, stage: int, link: bytes) -> None:
    # [chain-microbatch] it is about this microbatch, and with it this run and epoch
    if receipt.subject != microbatch:
        raise InvalidProofError(
            "chain-microbatch", f"expected {microbatch.hex()[:16]}, got {receipt.subject.hex()[:16]}"
        )
    # [chain-direction] it is a forward receipt
    if receipt.direction != "forward":
        raise InvalidProofError("chain-direction", f"expected forward, got {receipt.direction}")
    # [chain-stage] stages follow each other from 0
    if receipt.stage != stage:
        raise InvalidProofError("chain-stage", f"expected stage {stage}, got {receipt.stage}")
    # [chain-link] it worked on what the stage before it sent
    if receipt.in_digest != link:
        raise InvalidProofError("chain-link", f"expected input {link.hex()[:16]}, got {receipt.in_digest.hex()[:16]}")
