"""Agreement: what the two reports on every shard say together.

Every two members share exactly one shard, so an epoch's reports make a matrix with one entry for each pair. A member
that lies alone disagrees with all others; one that was lied to disagrees with the liars alone. The matrix is shown
and kept, but it convicts nobody: for a disagreement anyone fetches one block of each contribution and knows, and can
show, who lied (`reducer_fault`).

Two honest reducers may have worked on different inputs when a contributor died in between. They say so, and
everybody takes the copy that more members are in.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from iota_p2p_crypto.digest import Digest
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim
from iota_p2p_protocols.butterfly.shard_map import Shard, ShardMap

Reports = Mapping[int, ReducerReport]  # by member; each was checked by `check_reducer_report`


class Agreement(Enum):
    """What two members' reports on their common shard say; the value is how the matrix prints it."""

    AGREE = "="
    DISAGREE = "x"
    APART = "~"  # they had different inputs
    SILENT = "."  # one of them or both did not report it
    NONE = " "  # the shard has no blocks, or the two are the same member


@dataclass(frozen=True, slots=True)
class AgreementMatrix:
    """One entry for each pair of members.

    Attributes:
        rows: N x N, symmetric.
    """

    rows: tuple[tuple[Agreement, ...], ...]

    def disagreements(self, member: int) -> int:
        """Return with how many others a member disagrees."""
        return self.rows[member].count(Agreement.DISAGREE)

    def suspects(self) -> tuple[int, ...]:
        """Return the members that disagree with more than half of those they can be compared with.

        A hint for people and for whom to recompute first. It is right only while liars are fewer than half: beyond
        that, those who tell the truth are the ones who disagree.
        """
        compared = [row.count(Agreement.DISAGREE) + row.count(Agreement.AGREE) for row in self.rows]
        return tuple(member for member, all_ in enumerate(compared) if 2 * self.disagreements(member) > all_)

    def __str__(self) -> str:
        """Return it as lines of one character for each entry."""
        return "\n".join("".join(entry.value for entry in row) for row in self.rows)


def agreement_matrix(shard_map: ShardMap, reports: Reports) -> AgreementMatrix:
    """Compare the reports of a merge."""
    rows = [[Agreement.NONE] * shard_map.num_members for _ in range(shard_map.num_members)]
    for shard in shard_map.shards:
        one, other = shard.pair
        if one != other and shard.blocks:
            rows[one][other] = rows[other][one] = _compare(claims_on(shard, reports))
    return AgreementMatrix(tuple(map(tuple, rows)))


def claims_on(shard: Shard, reports: Reports) -> dict[int, ShardClaim]:
    """Return what its reducers said of a shard, by member."""
    found = {member: reports[member].claim_on(shard.index) for member in shard.reducers if member in reports}
    return {member: claim for member, claim in found.items() if claim is not None}


def disputed(shard_map: ShardMap, reports: Reports, liars: Collection[int] = ()) -> tuple[Shard, ...]:
    """Return the shards whose reducers say different things of the same inputs, unless one is a proved liar."""
    claims = {shard: _believable(shard, reports, liars) for shard in shard_map.shards if shard.blocks}
    return tuple(shard for shard, by in claims.items() if _compare(by) is Agreement.DISAGREE)


def settle(shard: Shard, reports: Reports, liars: Collection[int] = ()) -> ShardClaim | None:
    """Return the claim whose copy everybody takes, or None where the shard keeps its old value.

    Args:
        shard: one with blocks.
        reports: of all members that reported.
        liars: members that a proof names. As long as a dispute is open, the shard is lost: a merge whose time is up
            takes no chance.
    """
    claims = _believable(shard, reports, liars)
    if not claims or _compare(claims) is Agreement.DISAGREE:
        return None
    return min(claims.values(), key=lambda claim: (len(claim.missing), claim.missing))


def settled_digests(shard_map: ShardMap, reports: Reports, liars: Collection[int] = ()) -> tuple[Digest | None, ...]:
    """Return by shard the digest that everybody takes; None where it is lost or there is nothing to reduce."""
    claims = (settle(shard, reports, liars) if shard.blocks else None for shard in shard_map.shards)
    return tuple(None if claim is None else Digest(claim.digest) for claim in claims)


def _believable(shard: Shard, reports: Reports, liars: Collection[int]) -> dict[int, ShardClaim]:
    return {member: claim for member, claim in claims_on(shard, reports).items() if member not in liars}


def _compare(claims: Mapping[int, ShardClaim]) -> Agreement:
    if len(claims) < 2:  # noqa: PLR2004 - two reducers
        return Agreement.SILENT
    one, other = claims.values()
    if one.missing != other.missing:
        return Agreement.APART
    return Agreement.AGREE if one.digest == other.digest else Agreement.DISAGREE
