"""Collecting: a reducer's way to all members' blocks of its shards, and from them to results and a report.

All members are asked at once. A shard is reduced without the blocks of those who did not give them in time, and the
report says whose they were; who is merely slow is waited for as long as most have taken, and a little longer.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p.merge.block_fetch import BlockFetch, patience_s
from iota_p2p.merge.round import Means, Round
from iota_p2p_crypto.block_commitment import BlockCommitment
from iota_p2p_crypto.errors import LocalProtocolError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_protocols.butterfly.exchange import Span
from iota_p2p_protocols.butterfly.reduce import Reducer, counted_samples
from iota_p2p_protocols.butterfly.reducer_report import ShardClaim
from iota_p2p_protocols.butterfly.shard_digest import commit_shard
from iota_p2p_protocols.butterfly.shard_map import Shard
from iota_p2p_protocols.errors import RefusedError

FAILURES = (PeerUnavailableError, RefusedError, RemoteProtocolError, trio.TooSlowError)
# A straggler gets this many times what the faster ones took, and a second: in one swarm links differ tenfold.
STRAGGLER_FACTOR = 2.0
STRAGGLER_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReducedShard:
    """One of our shards.

    Attributes:
        claim: what we sign of it.
        blocks: result blocks, in order.
        clipped: members of whom some block was scaled down.
        refused: members of whom some block does not decode, and the first such block.
    """

    claim: ShardClaim
    blocks: Sequence[bytes]
    clipped: frozenset[int]
    refused: Mapping[int, int]


@dataclass(slots=True)
class Collecting:
    """Brings the blocks of some shards from all members.

    Attributes:
        means: how members are called.
        round_: the merge.
        shards: which shards: our own, or one in dispute.
        fetches: what came, by member.
    """

    means: Means
    round_: Round
    shards: Sequence[Shard]
    fetches: dict[int, BlockFetch] = field(default_factory=dict)
    _num_done: int = 0

    async def run(self) -> Mapping[int, ReducedShard]:
        """Return our shards, reduced, by index."""
        started_s = trio.current_time()
        wanted = [index for shard in self.shards for index in shard.blocks]
        others = self.round_.others
        with trio.move_on_after(patience_s(len(wanted) * len(others) * self.round_.shape.block_bytes)) as scope:
            async with trio.open_nursery() as nursery:
                for member in others:
                    self.fetches[member] = BlockFetch(self.means, self.round_, member)
                    nursery.start_soon(self._bring, member, wanted, scope, started_s)
        return await self.means.beside(self.reduce)

    async def _bring(self, member: int, wanted: Sequence[int], all_: trio.CancelScope, started_s: float) -> None:
        try:
            await self.fetches[member].run(wanted)
        except FAILURES as error:
            reason = str(error) or "too slow"
            _log.info("blocks missing", extra={"peer": self.round_.contributors[member].peer_id, "reason": reason})
        self._num_done += 1
        if 2 * self._num_done >= len(self.round_.others):
            now_s = trio.current_time()
            all_.deadline = min(all_.deadline, now_s + STRAGGLER_S + STRAGGLER_FACTOR * (now_s - started_s))

    def reduce(self) -> Mapping[int, ReducedShard]:
        """Reduce the shards with what came; takes long."""
        return {shard.index: self.reduce_shard(shard, self.missing(shard)) for shard in self.shards}

    def missing(self, shard: Shard) -> tuple[int, ...]:
        """Return the members of whom some block of a shard did not come."""
        return tuple(
            member
            for member, fetch in sorted(self.fetches.items())
            if any(index not in fetch.blocks for index in shard.blocks)
        )

    def block_of(self, member: int, index: int) -> bytes:
        """Return a block that is here."""
        return bytes(self._view_of(member, index))

    def _view_of(self, member: int, index: int) -> memoryview:
        if member == self.round_.me:
            return self.round_.committed.blocks(Span(first=index, count=1))
        return self.fetches[member].blocks[index]

    def commitment_of(self, member: int) -> BlockCommitment:
        """Return the list of a member's blocks, of whom some came."""
        if member == self.round_.me:
            return self.round_.committed.commitment
        commitment = self.fetches[member].commitment
        if commitment is None:
            raise LocalProtocolError(f"expected blocks of member {member}, got none")
        return commitment

    def reduce_shard(self, shard: Shard, missing: tuple[int, ...]) -> ReducedShard:
        """Reduce a shard without the blocks of some members; takes long."""
        round_, members = self.round_, range(len(self.round_.contributors))
        reducer = Reducer(counted_samples(round_.samples), round_.codec)
        results: list[bytes] = []
        clipped: set[int] = set()
        refused: dict[int, int] = {}
        for index in shard.blocks:
            encoded = [None if member in missing else self._view_of(member, index) for member in members]
            reduced = reducer.reduce(encoded, round_.values_in(index))
            results.append(reduced.encoded)
            clipped.update(reduced.clipped)
            for member in reduced.refused:
                refused.setdefault(member, index)
        root = commit_shard(results, round_.result).root
        claim = ShardClaim(shard=shard.index, digest=root, missing=missing)
        return ReducedShard(claim, results, frozenset(clipped), refused)
