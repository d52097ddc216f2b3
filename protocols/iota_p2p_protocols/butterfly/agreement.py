"""Agreement: what the two reports on every shard say together.

Every two members share exactly one shard, so an epoch's reports make a matrix with one entry for each pair. A member
that lies alone disagrees with all others; one that was lied to disagrees with the liars alone. The matrix is shown
and kept, but it convicts nobody: for a disagreement anyone fetches one block of each contribution and knows, and can
show, who lied (`reducer_fault`).

Two honest reducers may have worked on different inputs when a contributor died in between. They say so, and
everybody takes the copy that more members are in, or the other one where nobody gives that.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim
from iota_p2p_protocols.butterfly.shard_map import Shard, ShardMap

Reports = Mapping[int, ReducerReport]  # by member; each was checked by `check_reducer_report`
Claims = Mapping[int, ShardClaim]  # on one shard, by member


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


def claims_by_shard(shard_map: ShardMap, reports: Reports) -> tuple[Claims, ...]:
    """Return what was said of every shard."""
    claimed = _claimed(reports)
    return tuple(claimed.get(shard.index, {}) for shard in shard_map.shards)


def _claimed(reports: Reports) -> Mapping[int, Claims]:
    """Return what was said, by shard: most shards of a crowd that holds a small stage have no blocks, and no claims."""
    claimed: dict[int, dict[int, ShardClaim]] = {}
    for member, report in sorted(reports.items()):
        for claim in report.claims:
            claimed.setdefault(claim.shard, {})[member] = claim
    return claimed


def agreement_matrix(shard_map: ShardMap, reports: Reports) -> AgreementMatrix:
    """Compare the reports of a merge."""
    rows = [[Agreement.NONE] * shard_map.num_members for _ in range(shard_map.num_members)]
    for shard, claims in zip(shard_map.shards, claims_by_shard(shard_map, reports), strict=True):
        one, other = shard.pair
        if one != other and shard.blocks:
            rows[one][other] = rows[other][one] = _compare(claims)
    return AgreementMatrix(tuple(map(tuple, rows)))


def disputed(shard_map: ShardMap, reports: Reports, liars: Collection[int] = ()) -> tuple[Shard, ...]:
    """Return the shards whose reducers say different things of the same inputs, unless one is a proved liar."""
    return tuple(
        shard_map.shards[shard]
        for shard, claims in sorted(_claimed(reports).items())
        if _compare(_believable(claims, liars)) is Agreement.DISAGREE
    )


def ranked(claims: Claims, liars: Collection[int] = ()) -> tuple[ShardClaim, ...]:
    """Return the claims on one shard in the order in which everybody tries to take a copy of them.

    The fuller one first; but whoever makes it alone may not show what it signed, and then the other one has to do.

    Args:
        claims: what was said of one shard.
        liars: members that a proof names. As long as a dispute is open, the shard is lost: a merge whose time is up
            takes no chance.
    """
    believed = _believable(claims, liars)
    if _compare(believed) is Agreement.DISAGREE:
        return ()
    distinct = {claim.missing: claim for claim in believed.values()}
    return tuple(sorted(distinct.values(), key=lambda claim: (len(claim.missing), claim.missing)))


def settle(claims: Claims, liars: Collection[int] = ()) -> ShardClaim | None:
    """Return the claim whose copy everybody takes, or None where the shard keeps its old value."""
    return next(iter(ranked(claims, liars)), None)


def settle_all(shard_map: ShardMap, reports: Reports, liars: Collection[int] = ()) -> tuple[ShardClaim | None, ...]:
    """Return by shard the claim whose copy everybody takes; None where it is lost or has no blocks."""
    settled: list[ShardClaim | None] = [None] * len(shard_map.shards)
    for shard, claims in _claimed(reports).items():
        settled[shard] = settle(claims, liars)
    return tuple(settled)


def _believable(claims: Claims, liars: Collection[int]) -> Claims:
    return {member: claim for member, claim in claims.items() if member not in liars}


def _compare(claims: Claims) -> Agreement:
    if len(claims) < 2:  # noqa: PLR2004 - two reducers
        return Agreement.SILENT
    one, other = claims.values()
    if one.missing != other.missing:
        return Agreement.APART
    return Agreement.AGREE if one.digest == other.digest else Agreement.DISAGREE
