"""Rosters: which contributions a merge is made of, proposed by a convener and certified by two thirds of its members.

    packed roster = canonical {"contributions": [envelope, ...], "roster": envelope}

It travels whole, with the contributions it names, so that nobody has to ask for one. With the convener's signature it
is a proposal; a member countersigns by signing the same payload; with the signatures of two thirds it is a certificate,
whoever put it together.

A roster's payload has no field that its convener may choose besides the contributions: the shard map is drawn from its
digest, and whoever could try many sequence numbers could choose the map. An honest member signs one roster of each
convener and attempt. Spec: protocols/spec/butterfly.md.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.domains import CONTRIBUTION, ROSTER, Domain
from iota_p2p_crypto.envelope import Verified, merge_signatures
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_to_bytes
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError, LocalProtocolError, MalformedError
from iota_p2p_protocols.message import (
    Count,
    DigestField,
    Message,
    Opener,
    PeerIdField,
    SignedMessage,
    open_signed,
    seal_message,
)
from iota_p2p_protocols.microbatch import Stage

# A convener proposes, and once more if it hears that it had missed somebody. When all have had their turn, all have
# another one; after eight rounds any epoch's merge has long been given up.
TRIES_EACH = 2
MAX_ROUNDS = 8
MAX_ATTEMPTS = TRIES_EACH * MAX_ROUNDS
LIFETIME_S = 3600
_PACKED_START = b"\x82\xadcontributions"  # a canonical map of two whose first key this is; no envelope begins so
_ENVELOPE_BYTES = 512  # names, a key and a signature around a payload
MAX_ROSTER_BYTES = ROSTER.max_payload_bytes + 8192 + MAX_MEMBERS * (CONTRIBUTION.max_payload_bytes + _ENVELOPE_BYTES)


def quorum(num_members: int) -> int:
    """Return two thirds, rounded up: while fewer than a third lie, any two quorums have an honest member in common."""
    return -(-2 * num_members // 3)


class Roster(SignedMessage):
    """Whose contributions make a merge.

    Attributes:
        epoch: the epoch that ends.
        stage: the stage.
        convener: the member that proposes it.
        attempt: which of the convener's own, from 0: two in each round.
        peers: the members, ascending by the bytes of their ids; a member's index here is its number.
        contributions: the digest of each one's contribution.
    """

    domain: ClassVar[Domain] = ROSTER
    max_lifetime_s: ClassVar[int] = LIFETIME_S

    epoch: Count
    stage: Stage
    convener: PeerIdField
    attempt: Annotated[int, Field(ge=0, lt=MAX_ATTEMPTS)]
    peers: Annotated[tuple[PeerIdField, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    contributions: Annotated[tuple[DigestField, ...], Field(min_length=1, max_length=MAX_MEMBERS)]

    @model_validator(mode="after")
    def _check_table(self) -> Self:
        ids = [peer_id_to_bytes(PeerId(peer_id)) for peer_id in self.peers]
        if any(low >= high for low, high in pairwise(ids)):
            raise ValueError("peers must be distinct and ascending")
        if len(self.contributions) != len(self.peers):
            raise ValueError("there must be one contribution for each peer")
        if self.convener not in self.peers:
            raise ValueError("convener must be one of the peers")
        return self

    @property
    def members(self) -> tuple[PeerId, ...]:
        """The members' ids."""
        return tuple(PeerId(peer_id) for peer_id in self.peers)


def roster_of(contributions: Collection[Verified[Contribution]], convener: PeerId, attempt: int) -> Roster:
    """Return the roster of some contributions, one of each peer: everything else in it follows from them."""
    ordered = sorted(contributions, key=lambda one: peer_id_to_bytes(one.signer))
    if not ordered:
        raise LocalProtocolError("expected contributions, got none")
    first = ordered[0].payload
    issued_s = max(one.payload.issued_s for one in ordered)
    return Roster(
        run_id=first.run_id,
        sequence=attempt,
        issued_s=issued_s,
        expires_s=issued_s + LIFETIME_S,
        epoch=first.epoch,
        stage=first.stage,
        convener=convener,
        attempt=attempt,
        peers=tuple(one.signer for one in ordered),
        contributions=tuple(one.digest for one in ordered),
    )


class _Packed(Message):
    """A roster and what it names."""

    contributions: Annotated[tuple[bytes, ...], Field(max_length=MAX_MEMBERS)]
    roster: bytes


@dataclass(frozen=True, slots=True)
class Proposal:
    """A roster with the contributions it names, as `open_proposal` found it: by whom it is signed is not judged.

    Attributes:
        roster: the roster and its signatures so far.
        contributions: in the members' order.
    """

    roster: Verified[Roster]
    contributions: tuple[Verified[Contribution], ...]

    @property
    def digest(self) -> Digest:
        """The name of the roster, whoever signed it."""
        return self.roster.digest

    @property
    def members(self) -> tuple[PeerId, ...]:
        """The members' ids, ascending by their bytes."""
        return self.roster.payload.members

    @property
    def samples(self) -> tuple[int, ...]:
        """The members' microbatches."""
        return tuple(one.payload.samples for one in self.contributions)

    @property
    def base_digest(self) -> Digest:
        """Of the weights that all members began with."""
        return Digest(self.contributions[0].payload.base_digest)

    @property
    def data(self) -> bytes:
        """Its bytes, for passing on."""
        return pack_roster(self.roster.envelope_bytes, self.contributions)


@dataclass(frozen=True, slots=True)
class RosterCertificate(Proposal):
    """A proposal with two thirds of its members behind it; `open_roster_certificate` builds one."""


def pack_roster(envelope: bytes, contributions: Sequence[Verified[Contribution]]) -> bytes:
    """Return the bytes of a proposal or certificate."""
    return canonical.encode({"contributions": tuple(one.envelope_bytes for one in contributions), "roster": envelope})


def is_packed_roster(data: bytes) -> bool:
    """Tell whether a file says that it is a roster with its contributions."""
    return data.startswith(_PACKED_START)


def propose(contributions: Collection[Verified[Contribution]], attempt: int, convener: Identity) -> Proposal:
    """Sign a proposal."""
    return open_proposal(
        pack_roster(
            seal_message(roster_of(contributions, convener.peer_id, attempt), convener),
            sorted(contributions, key=lambda one: peer_id_to_bytes(one.signer)),
        )
    )


def open_proposal(data: bytes, opener: Opener = open_signed) -> Proposal:
    """Check a packed roster: its form, every signature in it, and that it follows from its contributions.

    Raises:
        InvalidSignatureError: if somebody signed it who is no member.
        InvalidProofError: if its contributions do not belong together, or it does not follow from them.
        RemoteProtocolError: if it, the roster or a contribution is malformed or does not verify.
    """
    fields = _Packed.from_fields(canonical.decode(data, max_bytes=MAX_ROSTER_BYTES))
    contributions = tuple(opener(envelope, Contribution) for envelope in fields.contributions)
    roster = opener(fields.roster, Roster)
    _check_alike(contributions)
    # [roster-fixed] nothing in it was for its convener to choose
    if roster.payload != roster_of(contributions, PeerId(roster.payload.convener), roster.payload.attempt):
        raise InvalidProofError("roster-fixed", "expected a roster that follows from its contributions, got another")
    # [roster-order] they come in the members' order, each once
    if tuple(one.signer for one in contributions) != roster.payload.members:
        raise InvalidProofError("roster-order", "expected contributions in the order of members, got another")
    # [roster-signer] only members sign
    strangers = set(roster.signers) - set(roster.payload.members)
    if strangers:
        raise InvalidSignatureError("roster-signer", f"expected members' signatures, got {min(strangers)}")
    # [roster-convener] its convener is one of them
    if roster.payload.convener not in roster.signers:
        raise InvalidSignatureError("roster-convener", f"expected {roster.payload.convener} to sign, got others")
    return Proposal(roster, contributions)


def open_roster_certificate(data: bytes, opener: Opener = open_signed) -> RosterCertificate:
    """Check a certificate by itself.

    Raises:
        InvalidProofError: if fewer than two thirds of its members signed it, or as `open_proposal`.
        RemoteProtocolError: as `open_proposal`.
    """
    return certified(open_proposal(data, opener))


def certified(proposal: Proposal) -> RosterCertificate:
    """Return the certificate that a proposal has become; raises InvalidProofError if signatures are missing."""
    # [roster-quorum] two thirds of its members signed it
    needed = quorum(len(proposal.members))
    if len(proposal.roster.signers) < needed:
        raise InvalidProofError("roster-quorum", f"expected {needed} signatures, got {len(proposal.roster.signers)}")
    return RosterCertificate(proposal.roster, proposal.contributions)


def countersign(proposal: Proposal, member: Identity) -> Verified[Roster]:
    """Sign a proposal's roster as a member, beside its convener, whose contradictions are then shown up.

    Two countersignatures that name one convener and attempt, and two rosters, prove that it proposed both.
    """
    if member.peer_id not in proposal.members:
        raise LocalProtocolError(f"expected to be a member, got {member.peer_id}")
    own = seal_message(proposal.roster.payload, member)
    return open_signed(merge_signatures([proposal.roster.envelope_bytes, own]), Roster)


def join_signatures(
    proposal: Proposal, signatures: Sequence[Verified[Roster]], opener: Opener = open_signed
) -> Proposal:
    """Return a proposal with more signatures on its roster; those it has already count once."""
    envelopes = [proposal.roster.envelope_bytes, *(one.envelope_bytes for one in signatures)]
    return open_proposal(pack_roster(merge_signatures(envelopes), proposal.contributions), opener)


def _check_alike(contributions: Sequence[Verified[Contribution]]) -> None:
    # [roster-empty] there are some
    if not contributions:
        raise MalformedError("roster-empty", "expected contributions, got none")
    kinds = {one.payload.merge for one in contributions}
    # [roster-alike] all are of one stage and epoch, in one form, and of one row
    if len(kinds) > 1:
        raise InvalidProofError("roster-alike", f"expected contributions to one merge, got {len(kinds)}")
    bases = {one.payload.base_digest for one in contributions}
    # [roster-base] all began with the same weights: differences from different weights have no mean
    if len(bases) > 1:
        raise InvalidProofError("roster-base", f"expected contributions from one base, got {len(bases)}")
