"""Peers that cheat in merges, by name: honest in everything but one thing.

member = await swarm.start(3, twist=merge_twist("bad-reducer"))
iota-p2p testnet --adversary bad-reducer=2
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from iota_p2p.merge.certifying import Certifying
from iota_p2p.merge.collecting import Collecting, ReducedShard
from iota_p2p.merge.encounter import Encounter, Outcome
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.meeting import MeetingTask
from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.round import Committed
from iota_p2p.merge.stage_merge import StageMerge
from iota_p2p.peer import Peer
from iota_p2p.training.held_stage import EpochWork
from iota_p2p.training.trainer import Trainer
from iota_p2p_crypto.block_commitment import commit_blocks
from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.meeting import Effect, Meeting, Send
from iota_p2p_protocols.butterfly.merge_certificate import Merge, check_merge
from iota_p2p_protocols.butterfly.roster import open_proposal, propose
from iota_p2p_protocols.butterfly.shard_digest import commit_shard
from iota_p2p_protocols.butterfly.shard_map import Shard
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_testnet.adversaries import serve_wrong_chunks
from iota_p2p_testnet.training_swarm import Twist

SCALE = np.float32(100)  # of the contributions that are made to weigh more than others


class WrongResults(Collecting):
    """Reduces its own shards to something else, and signs that."""

    def reduce_shard(self, shard: Shard, missing: tuple[int, ...]) -> ReducedShard:
        """See `Collecting.reduce_shard`."""
        honest = super().reduce_shard(shard, missing)
        if shard not in self.round_.own_shards:
            return honest
        blocks = [self.wrong(block, index) for block, index in zip(honest.blocks, shard.blocks, strict=True)]
        root = commit_shard(blocks, self.round_.result).root
        return replace(honest, blocks=blocks, claim=honest.claim.model_copy(update={"digest": root}))

    def wrong(self, block: bytes, index: int) -> bytes:
        """Return another result than the right one: each liar its own."""
        return self._other(block, self.round_.members[self.round_.me].encode() + index.to_bytes(4, "big"))

    def _other(self, block: bytes, salt: bytes) -> bytes:
        # Bits of an int8 or float32 mantissa, so that what is wrong still decodes.
        at = int.from_bytes(sha256(salt).digest()[:4], "big") % (len(block) // 4) * 4
        return block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]


class AgreedWrongResults(WrongResults):
    """Reduces to what all colluders reduce to."""

    def wrong(self, block: bytes, index: int) -> bytes:
        """Return another result than the right one: all liars the same."""
        return self._other(block, index.to_bytes(4, "big"))


class GarbageResults(WrongResults):
    """Reduces to what does not decode, as all colluders do."""

    def wrong(self, block: bytes, _: int) -> bytes:
        """Return what no codec of values decodes."""
        return b"\xff" * len(block)


class _SilentConvener(MeetingTask):
    """Proposes nothing when it is its turn."""

    def _do(self, meeting: Meeting, effects: Sequence[Effect]) -> None:
        super()._do(meeting, [one for one in effects if not (isinstance(one, Send) and one.what == "roster")])


class _EquivocatingConvener(MeetingTask):
    """Proposes one roster to some and another one, without its last member, to others."""

    def _do(self, meeting: Meeting, effects: Sequence[Effect]) -> None:
        super()._do(meeting, [part for one in effects for part in self._split(one)])

    def _split(self, effect: Effect) -> Sequence[Effect]:
        if not isinstance(effect, Send) or effect.what != "roster":
            return [effect]
        proposal = open_proposal(effect.data)
        mine = proposal.roster.signers == (self.means.identity.peer_id,)
        if not mine or len(proposal.members) < 3:  # noqa: PLR2004 - whom to lie to, and about whom
            return [effect]
        others = [one for one in proposal.contributions if one.signer != self.means.identity.peer_id]
        left = [one for one in proposal.contributions if one is not others[-1]]
        other = propose(left, proposal.roster.payload.attempt, self.means.identity)
        return [effect, Send("roster", other.data, effect.to)]


def _encountering(meet: type[MeetingTask] = MeetingTask, collect: type[Collecting] = Collecting) -> type[StageMerge]:
    class Cheat(StageMerge):
        def _encounter(self, work: EpochWork, committed: Committed) -> Encounter:
            return replace(super()._encounter(work, committed), meet=meet, collect=collect)

    return Cheat


def _contributing(change: Callable[[Vector], Vector]) -> type[StageMerge]:
    class Cheat(StageMerge):
        def _commit(self, gradient: Vector) -> Committed:
            return super()._commit(change(gradient))

    return Cheat


class _Nan(StageMerge):
    """Commits to blocks that do not decode."""

    def _commit(self, gradient: Vector) -> Committed:
        honest = super()._commit(gradient)
        encoded = b"\xff" * len(honest.encoded)
        return replace(honest, encoded=encoded, commitment=commit_blocks(encoded, honest.codec.block_bytes))


class _TwoFaced(Certifying[Merge]):
    """Signs another result for every other member, and passes on nothing."""

    def _send(self, data: bytes) -> None:
        merge, me = open_signed(data, Merge), self.means.identity
        if merge.signers == (me.peer_id,):
            other = merge.payload.model_copy(update={"theta_digest": digest(data)})
            others = [member for member in self.roster.members if member != me.peer_id]
            self.letters.send("merge", data, others[::2])
            self.letters.send("merge", seal_message(other, me), others[1::2])


class _TwoResults(StageMerge):
    def _certifying(self, outcome: Outcome, letters: Letters) -> Certifying[Merge]:
        return _TwoFaced(self.means, letters, outcome.certificate, self.on_fault, Merge, check_merge)


KINDS: Mapping[str, type[StageMerge]] = {
    "bad-reducer": _encountering(collect=WrongResults),
    "colluding-reducers": _encountering(collect=AgreedWrongResults),
    "garbage-reducers": _encountering(collect=GarbageResults),
    "poisoned": _contributing(np.negative),
    "scaled": _contributing(lambda gradient: np.multiply(gradient, SCALE)),
    "nan": _Nan,
    "silent-convener": _encountering(meet=_SilentConvener),
    "equivocating-convener": _encountering(meet=_EquivocatingConvener),
    "two-results": _TwoResults,
}


NAMES = frozenset({*KINDS, "wrong-chunks"})


def merge_twist(name: str) -> Twist:
    """Return what makes a peer cheat in its merges."""
    if name == "wrong-chunks":
        return serve_wrong_chunks

    async def twist(_: Peer, trainer: Trainer) -> None:
        if trainer.merger is not None:
            trainer.merger.kind = KINDS[name]

    return twist
