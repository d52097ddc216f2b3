"""Reducer faults: a result block that does not follow from the committed blocks it was made of.

The proof holds one block of each member that the reducer did not report as missing, each with its inclusion proof
under the root that the member signed, the claimed result block with its inclusion proof under the digest that the
reducer signed, and the roster certificate that binds them together. Whoever reduces those blocks anew
finds another result, and knows who lied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from iota_p2p_crypto.block_commitment import verify_block
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.codec import Codec, block_values, num_blocks
from iota_p2p_protocols.butterfly.codecs import CODECS, result_codec
from iota_p2p_protocols.butterfly.contribution_fault import BlockIndex
from iota_p2p_protocols.butterfly.fault_file import InclusionProof, Verdict, cut, pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.reduce import reduce_block
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim, check_reducer_report
from iota_p2p_protocols.butterfly.roster import RosterCertificate, open_roster_certificate
from iota_p2p_protocols.butterfly.shard_digest import shard_shape
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS, Shard, draw_shard_map
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.message import Message, open_signed


@dataclass(frozen=True, slots=True)
class ProvedBlock:
    """A block, and the proof that it is the committed one (`BlockCommitment.prove_block`)."""

    data: bytes
    proof: InclusionProof


class ReducerFaultHeader(Message):
    """What the proof holds besides the blocks: those of the members that were not missing, in order, and the result.

    Attributes:
        certificate: the packed roster certificate, with all contributions.
        report: the envelope of the reducer's report.
        block: the block's index in the vector.
        proofs: for each of the members' blocks.
        result_proof: for the result block.
    """

    fault: Literal["reducer"] = "reducer"
    certificate: bytes
    report: bytes
    block: BlockIndex
    proofs: Annotated[tuple[InclusionProof, ...], Field(max_length=MAX_MEMBERS)]
    result_proof: InclusionProof


@dataclass(frozen=True, slots=True)
class _Accusation:
    """What the signed parts of a proof say together."""

    certificate: RosterCertificate
    report: Verified[ReducerReport]
    shard: Shard
    claim: ShardClaim

    @property
    def codec(self) -> Codec:
        """The contributions' codec."""
        return CODECS[self.certificate.contributions[0].payload.codec]

    @property
    def num_values(self) -> int:
        """W, of the whole vector."""
        return self.certificate.contributions[0].payload.num_values

    @property
    def present(self) -> tuple[int, ...]:
        """The members whose blocks the reducer says it had."""
        return tuple(m for m in range(len(self.certificate.members)) if m not in self.claim.missing)


def make_reducer_fault(
    certificate: RosterCertificate,
    report: Verified[ReducerReport],
    block: int,
    inputs: Mapping[int, ProvedBlock],
    result: ProvedBlock,
) -> bytes:
    """Return the proof; raises RemoteProtocolError if it does not hold.

    Args:
        certificate: of the merge.
        report: the accused reducer's.
        block: index of the block in the vector.
        inputs: by member, of all that the report's claim does not name as missing.
        result: what the reducer says comes of them.
    """
    members = sorted(inputs)
    header = ReducerFaultHeader(
        certificate=certificate.data,
        report=report.envelope_bytes,
        block=block,
        proofs=tuple(inputs[member].proof for member in members),
        result_proof=result.proof,
    )
    data = pack_fault(header.to_fields(), [*(inputs[member].data for member in members), result.data])
    verify_reducer_fault(data)
    return data


def verify_reducer_fault(data: bytes) -> Verdict:
    """Check the proof by itself.

    Raises:
        InvalidProofError: if a block is not the committed one, or the result is the right one.
        RemoteProtocolError: if it is malformed, or something signed in it does not verify.
    """
    fields, blocks = unpack_fault(data)
    header = ReducerFaultHeader.from_fields(fields)
    case = _open_signed_parts(header)
    inputs, claimed = _open_blocks(header, case, blocks)
    count = block_values(case.num_values, header.block)
    expected = reduce_block(inputs, case.certificate.samples, case.codec, count).encoded
    # [fault-result] the result is another one
    if claimed == expected:
        raise InvalidProofError("fault-result", f"expected a result that is wrong, got the right one of {header.block}")
    return Verdict(
        case.report.signer,
        header.fault,
        case.report.payload.run_id,
        case.report.payload.epoch,
        case.report.payload.stage,
        f"block {header.block} of shard {case.shard.index}: expected a result with digest"
        f" {digest(expected).hex()[:16]}, got {digest(claimed).hex()[:16]}",
    )


def _open_signed_parts(header: ReducerFaultHeader) -> _Accusation:
    certificate = open_roster_certificate(header.certificate)
    report = open_signed(header.report, ReducerReport)
    roster, said = certificate.roster.payload, report.payload
    # [fault-same] certificate and report are of one merge
    if (said.run_id, said.epoch, said.stage) != (roster.run_id, roster.epoch, roster.stage):
        raise InvalidProofError("fault-same", f"expected a report on epoch {roster.epoch}, got one on {said.epoch}")
    total_blocks = num_blocks(certificate.contributions[0].payload.num_values)
    shard_map = draw_shard_map(certificate.digest, len(certificate.members), total_blocks)
    check_reducer_report(report, roster=certificate.digest, members=certificate.members, shard_map=shard_map)
    shard = next((shard for shard in shard_map.shards if header.block in shard.blocks), None)
    claim = None if shard is None else said.claim_on(shard.index)
    # [fault-claim] the report claims the shard that the block is in
    if shard is None or claim is None:
        raise InvalidProofError("fault-claim", f"expected a claim on the shard of block {header.block}, got none")
    return _Accusation(certificate, report, shard, claim)


def _open_blocks(header: ReducerFaultHeader, case: _Accusation, blocks: memoryview) -> tuple[list[bytes | None], bytes]:
    """Return every member's block, None where it was missing, and the claimed result."""
    # [fault-proofs] there is a proof for each member that was not missing
    if len(header.proofs) != len(case.present):
        raise InvalidProofError("fault-proofs", f"expected {len(case.present)} proofs, got {len(header.proofs)}")
    shape = case.certificate.contributions[0].payload.shape
    result_shape = shard_shape(case.shard, result_codec(case.codec), case.num_values)
    place = header.block - case.shard.blocks.start
    lengths = [shape.length(header.block)] * len(case.present)
    *given, claimed = cut(blocks, [*lengths, result_shape.length(place)])
    inputs: list[bytes | None] = [None] * len(case.certificate.members)
    for member, block, proof in zip(case.present, given, header.proofs, strict=True):
        # [block-*, merkle-*] each is the block its author committed to
        root = case.certificate.contributions[member].payload.root
        verify_block(root, shape, header.block, block, proof)
        inputs[member] = block
    # [block-*, merkle-*] and the result is the one the reducer signed
    verify_block(case.claim.digest, result_shape, place, claimed, header.result_proof)
    return inputs, claimed
