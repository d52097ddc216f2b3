"""Votes: what every member of a roster says came of something, in words that leave nothing to choose.

Those who came to the same have signed the same bytes, and the signatures of two thirds on one envelope certify it. An
honest member signs one vote of each kind on a roster; whoever signed two is convicted by them (`vote_fault`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified, merge_signatures
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.butterfly.contribution import MAX_SAMPLES
from iota_p2p_protocols.butterfly.reducer_report import MAX_SHARDS
from iota_p2p_protocols.butterfly.roster import RosterCertificate, quorum
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError
from iota_p2p_protocols.message import Count, DigestField, Opener, PeerIdField, SignedMessage, open_signed
from iota_p2p_protocols.microbatch import Stage


class Vote(SignedMessage):
    """What members of a roster vote on.

    Attributes:
        about: of which kind it is: how its rules begin, and as which letters it travels.
        epoch: the epoch that ended.
        stage: the stage.
        roster: digest of the roster certificate's payload.
        peers: its members, so that the certificate can be checked by itself.
        samples: microbatches of all contributions together.
        lost: shards without a result, rising.
        base_digest: of the weights that the epoch began with.
    """

    about: ClassVar[Literal["merge", "row"]]

    epoch: Count
    stage: Stage
    roster: DigestField
    peers: Annotated[tuple[PeerIdField, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    samples: Annotated[int, Field(ge=1, le=MAX_MEMBERS * MAX_SAMPLES)]
    lost: Annotated[tuple[Annotated[int, Field(ge=0, lt=MAX_SHARDS)], ...], Field(max_length=MAX_SHARDS)]
    base_digest: DigestField

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        ids = [peer_id_to_bytes(PeerId(peer_id)) for peer_id in self.peers]
        if any(low >= high for low, high in pairwise(ids)) or any(low >= high for low, high in pairwise(self.lost)):
            raise ValueError("peers and lost shards must be distinct and ascending")
        return self


V = TypeVar("V", bound=Vote)


def decided_by(certificate: RosterCertificate, kind: type[Vote]) -> dict[str, Any]:
    """Return the fields of a vote of this kind that leave its voters nothing to say: those that the roster decides."""
    roster = certificate.roster.payload
    return {
        "run_id": roster.run_id,
        "sequence": roster.epoch,
        "issued_s": roster.issued_s,
        "expires_s": roster.issued_s + kind.max_lifetime_s,
        "epoch": roster.epoch,
        "stage": roster.stage,
        "roster": certificate.digest,
        "peers": roster.peers,
        "base_digest": certificate.base_digest,
    }


def join_votes(votes: Sequence[Verified[V]], kind: type[V], opener: Opener = open_signed) -> Verified[V] | None:
    """Return the certificate, if among these are the signatures of two thirds of the members on one result."""
    by_result: dict[Digest, list[Verified[V]]] = {}
    for vote in votes:
        by_result.setdefault(vote.digest, []).append(vote)
    for same in by_result.values():
        members = frozenset(same[0].payload.peers)
        signers = {signer for vote in same for signer in vote.signers}
        if signers <= members and len(signers) >= quorum(len(members)):
            return open_vote_certificate(merge_signatures([one.envelope_bytes for one in same]), kind, opener)
    return None


def open_vote_certificate(data: bytes, kind: type[V], opener: Opener = open_signed) -> Verified[V]:
    """Check a certificate by itself: that two thirds of those it names have signed it.

    Raises:
        InvalidSignatureError: if somebody else signed, too.
        InvalidProofError: if signatures are missing.
        RemoteProtocolError: if it is malformed or does not verify.
    """
    vote = opener(data, kind)
    members = frozenset(vote.payload.peers)
    # [merge-signer, row-signer] only members sign
    strangers = set(vote.signers) - members
    if strangers:
        raise InvalidSignatureError(f"{kind.about}-signer", f"expected members' signatures, got {min(strangers)}")
    # [merge-quorum, row-quorum] two thirds of them
    needed = quorum(len(members))
    if len(vote.signers) < needed:
        raise InvalidProofError(f"{kind.about}-quorum", f"expected {needed} signatures, got {len(vote.signers)}")
    return vote
