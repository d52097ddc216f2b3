"""Reducer reports: what each member signs of the shards it reduced (spec: protocols/spec/reduce.md).

A member signs one report for a roster certificate, when it has reduced all its shards or its time is up. Two reports
of one member that say different things of one shard prove by themselves that it lies (`report_fault`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import REDUCER_REPORT, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS, ShardMap
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError, StaleError
from iota_p2p_protocols.message import Count, DigestField, Message, SignedMessage
from iota_p2p_protocols.microbatch import Stage

MAX_SHARDS = MAX_MEMBERS * (MAX_MEMBERS - 1) // 2
MemberIndex = Annotated[int, Field(ge=0, lt=MAX_MEMBERS)]


class ShardClaim(Message):
    """What a reducer says of one shard.

    Attributes:
        shard: its index.
        digest: root over the result blocks (`shard_digest`).
        missing: members whose blocks never came, rising: the result is that of the others. Two reducers with
            different inputs differ without a lie, so each must say which it had.
    """

    shard: Annotated[int, Field(ge=0, lt=MAX_SHARDS)]
    digest: DigestField
    missing: Annotated[tuple[MemberIndex, ...], Field(max_length=MAX_MEMBERS - 1)] = ()


class ReducerReport(SignedMessage):
    """What a member says of the shards it reduced.

    Attributes:
        epoch: the epoch that ends.
        stage: the stage.
        roster: digest of the roster certificate.
        claims: one for each shard that it has reduced and that has blocks, by rising index.
    """

    domain: ClassVar[Domain] = REDUCER_REPORT
    max_lifetime_s: ClassVar[int] = 3600  # a merge takes seconds; the roster is checked besides

    epoch: Count
    stage: Stage
    roster: DigestField
    claims: Annotated[tuple[ShardClaim, ...], Field(max_length=MAX_MEMBERS - 1)]

    def claim_on(self, shard: int) -> ShardClaim | None:
        """Return what it says of a shard."""
        return next((claim for claim in self.claims if claim.shard == shard), None)


def check_reducer_report(
    report: Verified[ReducerReport], *, roster: bytes, members: Sequence[PeerId], shard_map: ShardMap
) -> int:
    """Check a report against its roster; return the number of the member that signed it.

    Raises:
        StaleError: if it is about another roster.
        InvalidSignatureError: if its signer is no member.
        InvalidProofError: if it claims a shard that is not its own, twice, or without blocks, or if its list of missing
            members makes no sense.
    """
    payload = report.payload
    # [report-roster] it is about this merge
    if payload.roster != roster:
        raise StaleError("report-roster", f"expected roster {roster.hex()[:16]}, got {payload.roster.hex()[:16]}")
    # [report-signer] a member signed it
    if report.signer not in members:
        raise InvalidSignatureError("report-signer", f"expected one of {len(members)} members, got {report.signer}")
    member = members.index(report.signer)
    # [report-order] its claims are in order, none twice
    if any(one.shard >= other.shard for one, other in pairwise(payload.claims)):
        raise InvalidProofError("report-order", "expected claims by rising shard, got another order")
    own = {shard.index for shard in shard_map.of(member) if shard.blocks}
    for claim in payload.claims:
        # [report-shard] they are about shards that the map gave to the signer
        if claim.shard not in own:
            raise InvalidProofError("report-shard", f"expected one of member {member}'s shards, got {claim.shard}")
        # [report-missing] who is missing is a rising list of other members
        rising = all(one < other for one, other in pairwise(claim.missing))
        if not rising or not set(claim.missing) <= set(range(len(members))) - {member}:
            raise InvalidProofError("report-missing", f"expected a rising list of others, got {claim.missing}")
    return member
