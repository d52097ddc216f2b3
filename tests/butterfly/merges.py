"""A whole small merge of fixed peers, with everything signed, in one process."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from iota_p2p_crypto.block_commitment import BlockCommitment, commit_blocks
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, peer_id_to_bytes
from iota_p2p_protocols.butterfly.codec import Codec, Vector, block_values, num_blocks
from iota_p2p_protocols.butterfly.codecs import CODECS, result_codec
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.reduce import reduce_block
from iota_p2p_protocols.butterfly.reducer_fault import ProvedBlock
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim
from iota_p2p_protocols.butterfly.roster import RosterCertificate, certified, countersign, join_signatures, propose
from iota_p2p_protocols.butterfly.shard_digest import commit_shard
from iota_p2p_protocols.butterfly.shard_map import Shard, ShardMap, draw_shard_map
from iota_p2p_protocols.message import open_signed, seal_message
from tests.butterfly.reports import EPOCH, STAGE, report
from tests.core.members import NOW_S, PEERS, RUN

Tamper = Callable[[int, bytes], bytes]  # what a reducer makes of the right result of a block


def truth(_: int, result: bytes) -> bytes:
    return result


@dataclass(frozen=True)
class Merge:
    """One merge.

    Attributes:
        codec: of the contributions.
        encoded: each member's blocks, end to end, in the order of members.
        samples: each member's.
        num_values: W.
    """

    codec: Codec
    encoded: tuple[bytes, ...]
    samples: tuple[int, ...]
    num_values: int

    @cached_property
    def identities(self) -> tuple[Identity, ...]:
        """The members, in order."""
        return tuple(sorted(PEERS[: len(self.encoded)], key=lambda peer: peer_id_to_bytes(peer.peer_id)))

    @cached_property
    def commitments(self) -> tuple[BlockCommitment, ...]:
        """Everybody's list of blocks."""
        return tuple(commit_blocks(encoded, self.codec.block_bytes) for encoded in self.encoded)

    @cached_property
    def contributions(self) -> tuple[Verified[Contribution], ...]:
        """What everybody signed of them."""
        return tuple(
            open_signed(seal_message(self._contribution(member), identity), Contribution)
            for member, identity in enumerate(self.identities)
        )

    def _contribution(self, member: int) -> Contribution:
        return Contribution(
            run_id=RUN,
            sequence=1,
            issued_s=NOW_S,
            expires_s=NOW_S + 600,
            epoch=EPOCH,
            stage=STAGE,
            codec=self.codec.name,
            num_values=self.num_values,
            root=self.commitments[member].root,
            samples=self.samples[member],
            base_digest=digest(b"base"),
            log_root=digest(b"log of %d" % member),
            end_digest=digest(b"end of %d" % member),
        )

    @cached_property
    def certificate(self) -> RosterCertificate:
        """The roster certificate, signed by all."""
        proposal = propose(self.contributions, 0, self.identities[0])
        signatures = [countersign(proposal, identity) for identity in self.identities[1:]]
        return certified(join_signatures(proposal, signatures))

    @cached_property
    def shard_map(self) -> ShardMap:
        """Who reduces what."""
        return draw_shard_map(self.certificate.digest, len(self.encoded), num_blocks(self.num_values))

    def block(self, member: int, index: int) -> bytes:
        """Return a member's block."""
        size = self.codec.block_bytes
        return self.encoded[member][index * size : (index + 1) * size]

    def result(self, index: int, missing: Collection[int] = ()) -> bytes:
        """Return the right result of a block."""
        blocks = [None if member in missing else self.block(member, index) for member in range(len(self.encoded))]
        return reduce_block(blocks, self.samples, self.codec, block_values(self.num_values, index)).encoded

    def results(self, shard: Shard, tamper: Tamper = truth, missing: Collection[int] = ()) -> BlockCommitment:
        """Return the commitment to a shard's results as a reducer has them."""
        blocks = [tamper(index, self.result(index, missing)) for index in shard.blocks]
        return commit_shard(blocks, result_codec(self.codec))

    def report(self, member: int, tamper: Tamper = truth, missing: tuple[int, ...] = ()) -> Verified[ReducerReport]:
        """Return what a member signs of its shards."""
        claims = tuple(
            ShardClaim(shard=shard.index, digest=self.results(shard, tamper, missing).root, missing=missing)
            for shard in self.shard_map.of(member)
            if shard.blocks
        )
        message = report(claims, roster=self.certificate.digest)
        return open_signed(seal_message(message, self.identities[member]), ReducerReport)

    def inputs(self, index: int, missing: Collection[int] = ()) -> dict[int, ProvedBlock]:
        """Return everybody's block with its proof."""
        return {
            member: ProvedBlock(self.block(member, index), self.commitments[member].prove_block(index))
            for member in range(len(self.encoded))
            if member not in missing
        }

    def claimed(self, index: int, tamper: Tamper = truth, missing: Collection[int] = ()) -> ProvedBlock:
        """Return a result block as a reducer has it, with its proof."""
        shard = self.shard_of(index)
        proof = self.results(shard, tamper, missing).prove_block(index - shard.blocks.start)
        return ProvedBlock(tamper(index, self.result(index, missing)), proof)

    def shard_of(self, index: int) -> Shard:
        """Return the shard that a block is in."""
        return next(shard for shard in self.shard_map.shards if index in shard.blocks)


def merge_of(codec: str, values: Sequence[Vector], samples: Sequence[int]) -> Merge:
    """Return the merge of some vectors."""
    found = CODECS[codec]
    return Merge(found, tuple(found.encode(of) for of in values), tuple(samples), len(values[0]))


def flipped(_: int, result: bytes) -> bytes:
    """Change the last bit of a result."""
    return result[:-1] + bytes([result[-1] ^ 1])


def not_a_number(length: int) -> Vector:
    return np.full(length, np.nan, dtype=np.float32)
