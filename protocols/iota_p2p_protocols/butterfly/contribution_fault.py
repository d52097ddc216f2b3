"""Contribution faults: a block that its author committed to and that does not decode, as NaN or infinity do not.

Reducers leave such a block out (`reduce`); this shows to anybody whose it is.
"""

from typing import Annotated, Literal

from pydantic import Field

from iota_p2p_crypto.block_commitment import MAX_BLOCKS, verify_block
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.codec import block_values
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.fault_file import InclusionProof, Verdict, cut, pack_fault, unpack_fault
from iota_p2p_protocols.errors import InvalidProofError, MalformedError
from iota_p2p_protocols.message import Message, open_signed

BlockIndex = Annotated[int, Field(ge=0, lt=MAX_BLOCKS)]


class ContributionFaultHeader(Message):
    """What the proof holds besides the block.

    Attributes:
        contribution: the envelope of the contribution.
        block: the block's index in the vector.
        proof: that it is the committed one.
    """

    fault: Literal["contribution"] = "contribution"
    contribution: bytes
    block: BlockIndex
    proof: InclusionProof


def make_contribution_fault(
    contribution: Verified[Contribution], index: int, block: bytes, proof: InclusionProof
) -> bytes:
    """Return the proof; raises InvalidProofError if it does not hold.

    Args:
        contribution: whose block it is.
        index: of the block in the vector.
        block: its bytes.
        proof: `BlockCommitment.prove_block(index)` of the author's list of blocks.
    """
    header = ContributionFaultHeader(contribution=contribution.envelope_bytes, block=index, proof=proof)
    data = pack_fault(header.to_fields(), [block])
    verify_contribution_fault(data)
    return data


def verify_contribution_fault(data: bytes) -> Verdict:
    """Check the proof by itself.

    Raises:
        InvalidProofError: if the block is not the committed one, or decodes.
        RemoteProtocolError: if it is malformed, or the contribution does not verify.
    """
    fields, blocks = unpack_fault(data)
    header = ContributionFaultHeader.from_fields(fields)
    contribution = open_signed(header.contribution, Contribution)
    payload = contribution.payload
    codec, shape = CODECS[payload.codec], payload.shape
    (block,) = cut(blocks, [shape.length(header.block)])
    # [block-*, merkle-*] it is the block its author committed to
    verify_block(payload.root, shape, header.block, block, header.proof)
    # [fault-decodes] and it does not decode
    try:
        codec.decode_block(block, block_values(payload.num_values, header.block))
    except MalformedError as error:
        reason = f"block {header.block}: {error}"
        return Verdict(contribution.signer, header.fault, payload.run_id, payload.epoch, payload.stage, reason)
    raise InvalidProofError("fault-decodes", f"expected a block that does not decode, got {codec.name} that does")
