"""The shard map: which two members reduce which blocks of the vector.

N members make N (N - 1) / 2 shards, each reduced by one unordered pair of members, and no pair twice: every member
reduces N - 1 shards, shares exactly one with each other member, and what it claims of each can be compared with
somebody else's claim. The members' places are drawn from the roster certificate's digest, so that nobody knows the map
when committing to a contribution.

Shards follow each other as the rounds of a tournament do, in each of which everybody plays once (the circle method;
with an odd number one pauses), and the first ones have one block more than the others if the blocks do not come out
even. So members' loads differ by two blocks at most, even where there are fewer blocks than shards.

Members are numbered as in the roster. Two members share all blocks; a single one has them to itself.
"""

from dataclasses import dataclass

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_protocols.errors import LocalProtocolError

# As many as can sign one envelope. Larger groups meet in a grid of two rounds (`grid`): shards would have few blocks,
# and a fault proof holds a block of every member.
MAX_MEMBERS = 64
_TAG = "iota-p2p/shard-map/1"


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of the vector.

    Attributes:
        index: its number.
        pair: the members that reduce it, the lower one first; twice the same if there is only one.
        blocks: its blocks; none if the vector has fewer blocks than there are shards.
    """

    index: int
    pair: tuple[int, int]
    blocks: range

    @property
    def reducers(self) -> tuple[int, ...]:
        """The members that reduce it, each once."""
        return self.pair[: len(set(self.pair))]

    def source_for(self, member: int) -> int:
        """Return the reducer whose copy a member takes first; the other one stands by.

        A reducer takes its own. The others are spread over both.
        """
        return member if member in self.pair else self.pair[(member + self.index) % 2]


@dataclass(frozen=True, slots=True)
class ShardMap:
    """All shards of one merge.

    Attributes:
        num_members: N.
        num_blocks: blocks of the vector.
        shards: by index; their blocks follow each other.
    """

    num_members: int
    num_blocks: int
    shards: tuple[Shard, ...]

    def of(self, member: int) -> tuple[Shard, ...]:
        """Return the shards that a member reduces, by index."""
        if not 0 <= member < self.num_members:
            raise LocalProtocolError(f"expected a member below {self.num_members}, got {member}")
        return tuple(shard for shard in self.shards if member in shard.pair)


def draw_shard_map(certificate: Digest, num_members: int, num_blocks: int) -> ShardMap:
    """Draw the shard map of a merge.

    Args:
        certificate: digest of the roster certificate's payload.
        num_members: N; rosters have up to MAX_MEMBERS.
        num_blocks: blocks of the vector; shards differ by one block at most.
    """
    if num_members < 1 or num_blocks < 1:
        raise LocalProtocolError(f"expected members and blocks, got {num_members} and {num_blocks}")
    drawn = sorted(range(num_members), key=lambda member: _rank(certificate, member))
    pairs = [(min(drawn[a], drawn[b]), max(drawn[a], drawn[b])) for a, b in _tournament(num_members)] or [(0, 0)]
    size, longer = divmod(num_blocks, len(pairs))
    edges = [index * size + min(index, longer) for index in range(len(pairs) + 1)]
    shards = (Shard(index, pair, range(edges[index], edges[index + 1])) for index, pair in enumerate(pairs))
    return ShardMap(num_members, num_blocks, tuple(shards))


def _rank(certificate: Digest, member: int) -> Digest:
    return tagged_digest(_TAG, certificate, member.to_bytes(2, "big"))


def _tournament(num_players: int) -> list[tuple[int, int]]:
    """Return all pairs, round by round: one player stays, the others move on around a circle."""
    even = num_players + num_players % 2
    circle = even - 1
    games = [
        (circle if step == 0 else (turn - step) % circle, (turn + step) % circle)
        for turn in range(circle)
        for step in range(even // 2)
    ]
    return [game for game in games if max(game) < num_players]  # whoever meets the one too many pauses
