"""Merge certificates: what two thirds of a roster's members say has come of their merge.

Every member works out the result by itself and signs it. There is nothing in it to choose, so those who came to the
same result have signed the same bytes, and their signatures together are the certificate. An honest member signs one
result of a roster: with fewer than a third of liars there is never more than one certificate of it.

A network that was cut in two may have two certificates of one epoch, for two rosters. Whoever hears of both follows
the one that `weight` puts first, and so does everybody else. Spec: protocols/spec/butterfly.md.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.domains import MERGE, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.grid import MAX_ROWS
from iota_p2p_protocols.butterfly.reducer_report import ShardClaim
from iota_p2p_protocols.butterfly.roster import RosterCertificate
from iota_p2p_protocols.butterfly.shard_map import ShardMap
from iota_p2p_protocols.butterfly.vote import Vote, decided_by, open_vote_certificate
from iota_p2p_protocols.errors import InvalidProofError, LocalProtocolError
from iota_p2p_protocols.message import DigestField, Opener, open_signed

LIFETIME_S = 30 * 24 * 3600  # as long as the states that name it
_NO_RESULT = bytes(32)
NO_VELOCITY = Digest(bytes(32))  # the run's outer step has no momentum
_TAG = "iota-p2p/settled-shards/1"


class Merge(Vote):
    """What has come of a merge.

    Attributes:
        about: as of all votes, which see for the other fields; lost shards kept their old value.
        shards: digest over what was settled on every shard (`settled_digest`).
        theta_digest: of the weights after it, with which the next epoch begins.
        velocity_digest: of the outer momentum's memory after it; zeros without one.
        rows: the row means that it was combined of, in the order of rows (`grid`); none if one roster held everybody.
    """

    domain: ClassVar[Domain] = MERGE
    max_lifetime_s: ClassVar[int] = LIFETIME_S
    about = "merge"

    shards: DigestField
    theta_digest: DigestField
    velocity_digest: DigestField
    rows: Annotated[tuple[DigestField, ...], Field(max_length=MAX_ROWS)] = ()


def settled_digest(settled: Sequence[ShardClaim | None]) -> Digest:
    """Return the digest over what was settled on every shard, by index; zeros stand for a shard without a result."""
    return tagged_digest(_TAG, *(_NO_RESULT if claim is None else claim.digest for claim in settled))


def lost_shards(shard_map: ShardMap, settled: Sequence[ShardClaim | None]) -> tuple[int, ...]:
    """Return the shards with blocks on which nothing was settled."""
    return tuple(one.index for one, said in zip(shard_map.shards, settled, strict=True) if one.blocks and not said)


def merge_of(
    certificate: RosterCertificate,
    shard_map: ShardMap,
    settled: Sequence[ShardClaim | None],
    *,
    theta_digest: Digest,
    velocity_digest: Digest = NO_VELOCITY,
    rows: Sequence[Digest] = (),
) -> Merge:
    """Return what a member signs when it has applied a merge; `settled` is of all shards, by index."""
    if len(settled) != len(shard_map.shards):
        raise LocalProtocolError(f"expected {len(shard_map.shards)} settled shards, got {len(settled)}")
    return Merge(
        **decided_by(certificate, Merge),
        samples=sum(certificate.samples),
        shards=settled_digest(settled),
        lost=lost_shards(shard_map, settled),
        theta_digest=theta_digest,
        velocity_digest=velocity_digest,
        rows=tuple(rows),
    )


def open_merge_certificate(data: bytes, opener: Opener = open_signed) -> Verified[Merge]:
    """Check a certificate by itself; raises RemoteProtocolError as `open_vote_certificate`."""
    return open_vote_certificate(data, Merge, opener)


def check_merge(merge: Merge, certificate: RosterCertificate) -> None:
    """Check a result against the roster it names; raises InvalidProofError if it is of another one."""
    roster = certificate.roster.payload
    expected = (roster.run_id, roster.epoch, roster.stage, certificate.digest, roster.peers, sum(certificate.samples))
    # [merge-roster] what it says of its roster is true
    if (merge.run_id, merge.epoch, merge.stage, merge.roster, merge.peers, merge.samples) != expected:
        raise InvalidProofError(
            "merge-roster", f"expected a merge of roster {certificate.digest.hex()[:16]}, got another"
        )
    # [merge-base] and of where its members began
    if merge.base_digest != certificate.base_digest:
        raise InvalidProofError("merge-base", "expected the base that all contributions name, got another")


def weight(certificate: Verified[Merge]) -> tuple[int, int, int, bytes]:
    """Return what certificates of one stage are compared by; the greater one is followed.

    A later epoch, then more members, then more work; then the digest, so that no two are ever equal.
    """
    merge = certificate.payload
    return merge.epoch, len(merge.peers), merge.samples, certificate.digest
