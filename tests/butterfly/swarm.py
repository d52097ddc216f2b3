"""Replicas of one stage through many epochs: rosters by the machine, reducing as members do, chaos, and liars.

Time passes in the making of rosters (`Room`); what comes after is done in step: blocks, reports, results, signatures.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from random import Random

import numpy as np
import pytest

from iota_p2p_crypto.block_commitment import BlockCommitment, commit_blocks
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.agreement import disputed, settle_all
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, Vector, block_values, num_blocks
from iota_p2p_protocols.butterfly.codecs import CODECS, result_codec
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.butterfly.meeting import Astray, Phase, Send
from iota_p2p_protocols.butterfly.merge_certificate import Merge, merge_of, weight
from iota_p2p_protocols.butterfly.reduce import reduce_block
from iota_p2p_protocols.butterfly.reducer_fault import ProvedBlock, make_reducer_fault
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim, check_reducer_report
from iota_p2p_protocols.butterfly.report_fault import make_report_fault
from iota_p2p_protocols.butterfly.roster import RosterCertificate, propose
from iota_p2p_protocols.butterfly.shard_digest import commit_shard
from iota_p2p_protocols.butterfly.shard_map import Shard, draw_shard_map
from iota_p2p_protocols.butterfly.vote import join_votes
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.message import open_signed, seal_message
from tests.butterfly.meetings import Room
from tests.butterfly.reports import report
from tests.butterfly.rosters import contributed

CODEC = CODECS["float32"]  # encodes at once; the codecs have tests of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """How often things go wrong in an epoch."""

    killed: float = 0.0  # each replica, in the middle of making the roster
    dies_reducing: float = 0.0  # each member, before it gave anybody a block
    cut: float = 0.0  # the network, in two, for the whole epoch
    slow_s: float = 0.1  # mean delay of a letter
    lost_report: float = 0.0  # each report, on its way to each member


CALM = Chaos()


@dataclass
class Replica:
    """One replica.

    Attributes:
        identity: who it is.
        theta_W: its weights at the epoch's beginning.
        certificate: of those weights.
        down_until: the epoch in which it is back.
        lies: whether it does whatever harm it can.
    """

    identity: Identity
    theta_W: Vector
    certificate: Verified[Merge] | None = None
    down_until: int = 0
    lies: bool = False

    @property
    def base(self) -> Digest:
        """The digest of its weights."""
        return digest(self.theta_W.tobytes())


@dataclass
class Round:
    """One merge: what its members committed to, and what honest ones come to."""

    certificate: RosterCertificate
    encoded: Mapping[Digest, bytes]  # by the digest of the contribution

    def __post_init__(self) -> None:
        self.num_values = self.certificate.contributions[0].payload.num_values
        self.blocks = [self.encoded[one.digest] for one in self.certificate.contributions]
        self.commitments = [commit_blocks(encoded, CODEC.block_bytes) for encoded in self.blocks]
        self.shard_map = draw_shard_map(
            self.certificate.digest, len(self.certificate.members), num_blocks(self.num_values)
        )
        self._results: dict[tuple[int, tuple[int, ...]], bytes] = {}

    def block(self, member: int, index: int) -> bytes:
        return self.blocks[member][index * CODEC.block_bytes : (index + 1) * CODEC.block_bytes]

    def result(self, index: int, missing: tuple[int, ...]) -> bytes:
        if (index, missing) not in self._results:
            members = range(len(self.blocks))
            inputs = [None if member in missing else self.block(member, index) for member in members]
            count = block_values(self.num_values, index)
            self._results[index, missing] = reduce_block(inputs, self.certificate.samples, CODEC, count).encoded
        return self._results[index, missing]

    def results(self, shard: Shard, missing: tuple[int, ...]) -> BlockCommitment:
        return commit_shard([self.result(index, missing) for index in shard.blocks], result_codec(CODEC))

    def report(self, member: int, by: Identity, missing: tuple[int, ...], lie: bytes = b"") -> Verified[ReducerReport]:
        """Return a member's report; a lie goes into all its digests."""
        claims = []
        for shard in self.shard_map.of(member):
            if shard.blocks:
                root = self.results(shard, missing).root
                claims.append(
                    ShardClaim(shard=shard.index, digest=digest(root + lie) if lie else root, missing=missing)
                )
        roster = self.certificate.roster.payload
        said = report(tuple(claims), roster=self.certificate.digest, epoch=roster.epoch, stage=roster.stage)
        signed = open_signed(seal_message(said, by), ReducerReport)
        check_reducer_report(
            signed, roster=self.certificate.digest, members=self.certificate.members, shard_map=self.shard_map
        )
        return signed

    def accuse(self, accused: Verified[ReducerReport], shard: Shard) -> None:
        """Try to convict a reducer that said the truth; raises InvalidProofError, as it must."""
        claim = accused.payload.claim_on(shard.index)
        assert claim is not None
        index = shard.blocks.start
        inputs = {
            member: ProvedBlock(self.block(member, index), self.commitments[member].prove_block(index))
            for member in range(len(self.blocks))
            if member not in claim.missing
        }
        result = ProvedBlock(self.result(index, claim.missing), self.results(shard, claim.missing).prove_block(0))
        make_reducer_fault(self.certificate, accused, index, inputs, result)

    def gradient(self, settled: Sequence[ShardClaim | None]) -> Vector:
        """Return the mean: zeros where a shard was lost."""
        mean_W = np.zeros(self.num_values, dtype=np.float32)
        for shard, claim in zip(self.shard_map.shards, settled, strict=True):
            if claim is None:
                continue
            for index in shard.blocks:
                count = block_values(self.num_values, index)
                values = result_codec(CODEC).decode_block(self.result(index, claim.missing), count)
                mean_W[index * BLOCK_VALUES : index * BLOCK_VALUES + count] = values
        return mean_W


@dataclass
class Swarm:
    """Replicas, and what happens to them.

    Attributes:
        seed: of all chance.
        replicas: all there are.
        num_values: W.
        num_merged: merges that were certified.
        accused: whom proofs have named.
    """

    seed: int
    replicas: list[Replica]
    num_values: int
    num_merged: int = 0
    accused: set[PeerId] = field(default_factory=set)
    _epoch: int = 0

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)  # noqa: S311 - chance, no secret

    @classmethod
    def of(cls, identities: Sequence[Identity], *, seed: int, num_liars: int = 0, num_values: int = 40) -> "Swarm":
        """Return a swarm in which the first ones lie."""
        theta_W = np.zeros(num_values, dtype=np.float32)
        replicas = [Replica(one, theta_W, lies=index < num_liars) for index, one in enumerate(identities)]
        return cls(seed, replicas, num_values)

    def honest(self) -> list[Replica]:
        """Return those that are there and do not lie."""
        return [one for one in self.replicas if not one.lies and one.down_until <= self._epoch]

    def run_epoch(self, chaos: Chaos = CALM) -> None:
        """Let an epoch pass."""
        self._epoch += 1
        there = [one for one in self.replicas if one.down_until <= self._epoch]
        self.rng.shuffle(there)
        at = self.rng.randrange(1, len(there)) if len(there) > 1 and self.rng.random() < chaos.cut else len(there)
        for side in (there[:at], there[at:]):
            if side:
                self.catch_up(side)
                self._merge_side(side, chaos)

    def catch_up(self, side: Collection[Replica]) -> None:
        """Let those who hear of each other follow the heaviest certificate."""
        known = [(weight(one.certificate), one) for one in side if one.certificate is not None]
        if known:
            _, best = max(known, key=lambda pair: pair[0])
            for one in side:
                one.theta_W, one.certificate = best.theta_W, best.certificate
        assert len({one.base for one in side if not one.lies}) <= 1

    def _merge_side(self, side: Sequence[Replica], chaos: Chaos) -> None:
        encoded: dict[Digest, bytes] = {}
        by_id = {one.identity.peer_id: one for one in side}
        room = self._meet(side, chaos, encoded)
        for fault in room.faults:
            self.accused.add(verify_fault(fault).liar)
        assert all(len(rosters) == 1 for rosters in room.signed.values())
        outcomes = room.outcomes()
        certificates = {
            meeting.certificate.digest: meeting.certificate
            for peer_id, meeting in room.meetings.items()
            if meeting.certificate is not None and meeting.phase == Phase.AGREED and peer_id not in room.dead
        }
        for certificate in certificates.values():
            living = [
                one
                for peer_id, one in by_id.items()
                if peer_id in certificate.members and (one.lies or outcomes.get(peer_id) == certificate.digest)
            ]
            self._merge(Round(certificate, encoded), living, chaos)

    def _meet(self, side: Sequence[Replica], chaos: Chaos, encoded: dict[Digest, bytes]) -> Room:
        room = Room(self.rng.getrandbits(32), twice=0.05)
        room.delay = lambda _, __, rng: min(rng.expovariate(1 / chaos.slow_s), 5.0)
        identities = [one.identity for one in side]
        for one in side:
            own = self._contribute(one, encoded)
            if one.lies:
                room.send(
                    one.identity.peer_id, Send("contribution", own.envelope_bytes, tuple(i.peer_id for i in identities))
                )
            else:
                room.join(one.identity, own, identities, at_s=self.rng.uniform(0, 0.3))
        room.run(self.rng.uniform(0.1, 0.6))
        for one in side:
            if one.lies:
                self._show_two_rosters(room, one, side, encoded)
            elif self.rng.random() < chaos.killed:
                room.kill(one.identity.peer_id)
                one.down_until = self._epoch + self.rng.randint(1, 3)
        room.run_until_agreed(room.now_s + 100)
        room.run(room.now_s + 2)  # the last letters
        outcomes = room.outcomes()
        for here, other in product(outcomes, outcomes):
            if outcomes[here] != outcomes[other]:
                room.tell(here, Astray(other))
        room.run(room.now_s + 10)
        return room

    def _contribute(self, one: Replica, encoded: dict[Digest, bytes], sequence: int = 1) -> Verified[Contribution]:
        chance = np.random.default_rng(self.rng.getrandbits(32))
        blocks = CODEC.encode(chance.standard_normal(self.num_values).astype(np.float32))
        own = contributed(
            one.identity,
            epoch=self._epoch,
            sequence=sequence,
            codec=CODEC.name,
            num_values=self.num_values,
            samples=self.rng.randint(1, 60),
            root=commit_blocks(blocks, CODEC.block_bytes).root,
            base_digest=one.base,
        )
        encoded[own.digest] = blocks
        return own

    def _show_two_rosters(
        self, room: Room, liar: Replica, side: Sequence[Replica], encoded: dict[Digest, bytes]
    ) -> None:
        known = [meeting.own for meeting in room.meetings.values()]
        others = [one.identity.peer_id for one in side if one is not liar]
        for sequence in (2, 3):
            proposal = propose([*known, self._contribute(liar, encoded, sequence)], 0, liar.identity)
            some = tuple(one for one in others if self.rng.random() < 0.6)
            room.send(liar.identity.peer_id, Send("roster", proposal.data, some))

    def _merge(self, round_: Round, living: Sequence[Replica], chaos: Chaos) -> None:
        members = round_.certificate.members
        dead = {one.identity.peer_id for one in living if not one.lies and self.rng.random() < chaos.dies_reducing}
        for one in living:
            if one.identity.peer_id in dead:
                one.down_until = self._epoch + 1
        living = [one for one in living if one.identity.peer_id not in dead]
        there = {members.index(one.identity.peer_id) for one in living}
        missing = tuple(member for member in range(len(members)) if member not in there)
        said = {members.index(one.identity.peer_id): self._say(round_, one, missing) for one in living}
        votes = []
        for one in living:
            heard = {
                member: self.rng.choice(reports)
                for member, reports in said.items()
                if member == members.index(one.identity.peer_id) or self.rng.random() >= chaos.lost_report
            }
            if not one.lies:
                votes.append((one, *self._result(round_, one, heard)))
        certificate = join_votes([vote for _, vote, _ in votes], Merge)
        for one, vote, theta_W in votes:
            if certificate is not None and vote.digest == certificate.digest:
                one.theta_W, one.certificate = theta_W, certificate
        self.num_merged += certificate is not None

    def _say(self, round_: Round, one: Replica, missing: tuple[int, ...]) -> list[Verified[ReducerReport]]:
        """Return what a member reports: liars have several stories."""
        member = round_.certificate.members.index(one.identity.peer_id)
        truth = round_.report(member, one.identity, missing)
        if not one.lies:
            return [truth]
        lie = round_.report(member, one.identity, missing, lie=b"lie")
        if truth.payload.claims:
            self.accused.add(verify_fault(make_report_fault(truth, lie)).liar)
        return [truth, lie, lie]

    def _result(
        self, round_: Round, one: Replica, heard: Mapping[int, Verified[ReducerReport]]
    ) -> tuple[Verified[Merge], Vector]:
        """Return what an honest member signs, and its weights then."""
        reports = {member: said.payload for member, said in heard.items()}
        liars = set()
        for shard in disputed(round_.shard_map, reports):
            for member in shard.reducers:
                claim = reports[member].claim_on(shard.index)
                assert claim is not None
                if claim.digest != round_.results(shard, claim.missing).root:
                    liars.add(member)
                    self.accused.add(heard[member].signer)
                else:
                    self._cannot_accuse(round_, heard[member], shard)
        settled = settle_all(round_.shard_map, reports, liars)
        theta_W = np.subtract(one.theta_W, round_.gradient(settled))
        merge = merge_of(round_.certificate, round_.shard_map, settled, theta_digest=digest(theta_W.tobytes()))
        return open_signed(seal_message(merge, one.identity), Merge), theta_W

    def _cannot_accuse(self, round_: Round, honest: Verified[ReducerReport], shard: Shard) -> None:
        with pytest.raises(InvalidProofError) as caught:
            round_.accuse(honest, shard)
        assert caught.value.rule == "fault-result"
