"""Merge certificates: what two thirds of a roster's members say has come of their merge.

Every member works out the result by itself and signs it. There is nothing in it to choose, so those who came to the
same result have signed the same bytes, and their signatures together are the certificate. An honest member signs one
result of a roster: with fewer than a third of liars there is never more than one certificate of it.

A network that was cut in two may have two certificates of one epoch, for two rosters. Whoever hears of both follows
the one that `weight` puts first, and so does everybody else. Spec: protocols/spec/butterfly.md.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.domains import MERGE, Domain
from iota_p2p_crypto.envelope import Verified, merge_signatures
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.butterfly.contribution import MAX_SAMPLES
from iota_p2p_protocols.butterfly.reducer_report import MAX_SHARDS, ShardClaim
from iota_p2p_protocols.butterfly.roster import RosterCertificate, quorum
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS, ShardMap
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError, LocalProtocolError
from iota_p2p_protocols.message import Count, DigestField, Opener, PeerIdField, SignedMessage, open_signed
from iota_p2p_protocols.microbatch import Stage

LIFETIME_S = 30 * 24 * 3600  # as long as the states that name it
_NO_RESULT = bytes(32)
NO_VELOCITY = Digest(bytes(32))  # the run's outer step has no momentum
_TAG = "iota-p2p/settled-shards/1"


class Merge(SignedMessage):
    """What has come of a merge.

    Attributes:
        epoch: the epoch that ended.
        stage: the stage.
        roster: digest of the roster certificate's payload.
        peers: its members, so that the certificate can be checked by itself.
        samples: microbatches of all contributions together.
        shards: digest over what was settled on every shard (`settled_digest`).
        lost: shards that kept their old value, rising.
        base_digest: of the weights before it.
        theta_digest: of the weights after it, with which the next epoch begins.
        velocity_digest: of the outer momentum's memory after it; zeros without one.
    """

    domain: ClassVar[Domain] = MERGE
    max_lifetime_s: ClassVar[int] = LIFETIME_S

    epoch: Count
    stage: Stage
    roster: DigestField
    peers: Annotated[tuple[PeerIdField, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    samples: Annotated[int, Field(ge=1, le=MAX_MEMBERS * MAX_SAMPLES)]
    shards: DigestField
    lost: Annotated[tuple[Annotated[int, Field(ge=0, lt=MAX_SHARDS)], ...], Field(max_length=MAX_SHARDS)]
    base_digest: DigestField
    theta_digest: DigestField
    velocity_digest: DigestField

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        ids = [peer_id_to_bytes(PeerId(peer_id)) for peer_id in self.peers]
        if any(low >= high for low, high in pairwise(ids)) or any(low >= high for low, high in pairwise(self.lost)):
            raise ValueError("peers and lost shards must be distinct and ascending")
        return self


def settled_digest(settled: Sequence[ShardClaim | None]) -> Digest:
    """Return the digest over what was settled on every shard, by index; zeros stand for a shard without a result."""
    return tagged_digest(_TAG, *(_NO_RESULT if claim is None else claim.digest for claim in settled))


def merge_of(
    certificate: RosterCertificate,
    shard_map: ShardMap,
    settled: Sequence[ShardClaim | None],
    *,
    theta_digest: Digest,
    velocity_digest: Digest = NO_VELOCITY,
) -> Merge:
    """Return what a member signs when it has applied a merge; `settled` is of all shards, by index."""
    roster = certificate.roster.payload
    if len(settled) != len(shard_map.shards):
        raise LocalProtocolError(f"expected {len(shard_map.shards)} settled shards, got {len(settled)}")
    return Merge(
        run_id=roster.run_id,
        sequence=roster.epoch,
        issued_s=roster.issued_s,
        expires_s=roster.issued_s + LIFETIME_S,
        epoch=roster.epoch,
        stage=roster.stage,
        roster=certificate.digest,
        peers=roster.peers,
        samples=sum(certificate.samples),
        shards=settled_digest(settled),
        lost=tuple(one.index for one, said in zip(shard_map.shards, settled, strict=True) if one.blocks and not said),
        base_digest=certificate.base_digest,
        theta_digest=theta_digest,
        velocity_digest=velocity_digest,
    )


def join_merges(merges: Sequence[Verified[Merge]], opener: Opener = open_signed) -> Verified[Merge] | None:
    """Return the certificate, if among these are the signatures of two thirds of the members on one result."""
    by_result: dict[Digest, list[Verified[Merge]]] = {}
    for merge in merges:
        by_result.setdefault(merge.digest, []).append(merge)
    for same in by_result.values():
        members = frozenset(same[0].payload.peers)
        signers = {signer for merge in same for signer in merge.signers}
        if signers <= members and len(signers) >= quorum(len(members)):
            return open_merge_certificate(merge_signatures([one.envelope_bytes for one in same]), opener)
    return None


def open_merge_certificate(data: bytes, opener: Opener = open_signed) -> Verified[Merge]:
    """Check a certificate by itself: that two thirds of those it names have signed it.

    Raises:
        InvalidSignatureError: if somebody else signed, too.
        InvalidProofError: if signatures are missing.
        RemoteProtocolError: if it is malformed or does not verify.
    """
    merge = opener(data, Merge)
    members = frozenset(merge.payload.peers)
    # [merge-signer] only members sign
    strangers = set(merge.signers) - members
    if strangers:
        raise InvalidSignatureError("merge-signer", f"expected members' signatures, got {min(strangers)}")
    # [merge-quorum] two thirds of them
    needed = quorum(len(members))
    if len(merge.signers) < needed:
        raise InvalidProofError("merge-quorum", f"expected {needed} signatures, got {len(merge.signers)}")
    return merge


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
