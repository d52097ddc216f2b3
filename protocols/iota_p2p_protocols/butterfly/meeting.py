"""What the making of a roster is about: what may happen, what is to be done then, and all that a member remembers.

The rules are in `roster_machine`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypeAlias

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.roster import Proposal, Roster, RosterCertificate

What: TypeAlias = Literal["contribution", "roster", "countersignature"]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a member waits, in seconds.

    Attributes:
        gather_s: for the contributions of replicas that are there: to see that the epoch is over and to encode.
        convene_s: for a convener: two round trips on a loaded machine; twice as long in each further round.
        grace_s: a contribution that came later than this before a proposal may be missing from it.
    """

    gather_s: float = 3.0
    convene_s: float = 1.0
    grace_s: float = 0.5


DEFAULT_PATIENCE = Patience()


class Phase(Enum):
    """Where a member stands."""

    GATHERING = "gathering"  # not all whom it expects have contributed
    WAITING = "waiting"  # for somebody else's proposal, or for the certificate
    CONVENING = "convening"  # it is our turn
    AGREED = "agreed"  # there is a certificate, and we are in it
    LEFT_OUT = "left-out"  # there is one without us: catch up from the result
    GIVEN_UP = "given-up"  # too many rounds failed


@dataclass(frozen=True, slots=True)
class Contributed:
    """A contribution to this merge came, from its maker or by way of somebody who misses it in a proposal."""

    contribution: Verified[Contribution]
    sender: PeerId


@dataclass(frozen=True, slots=True)
class Proposed:
    """A roster came: a proposal, or a certificate."""

    proposal: Proposal
    sender: PeerId


@dataclass(frozen=True, slots=True)
class Countersigned:
    """A countersignature came."""

    roster: Verified[Roster]
    sender: PeerId


@dataclass(frozen=True, slots=True)
class Gone:
    """A peer is no longer there."""

    peer_id: PeerId


@dataclass(frozen=True, slots=True)
class Astray:
    """A member said something of another roster than the one agreed on."""

    sender: PeerId


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Contributed | Proposed | Countersigned | Astray | Gone | Tick


@dataclass(frozen=True, slots=True)
class Send:
    """Bring this to these peers."""

    what: What
    data: bytes
    to: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Agreed:
    """This is the merge to take part in; it replaces one named earlier."""

    certificate: RosterCertificate


@dataclass(frozen=True, slots=True)
class LeftOut:
    """This merge goes on without us."""

    certificate: RosterCertificate


@dataclass(frozen=True, slots=True)
class Accuse:
    """This proves that somebody signed two rosters (`roster_fault`)."""

    fault: bytes


Effect: TypeAlias = Send | Agreed | LeftOut | Accuse
Attempt: TypeAlias = tuple[str, int]  # a convener and the number of its proposal


@dataclass(frozen=True, slots=True)
class Meeting:
    """All that a member knows of a roster's making; `roster_machine.begin` builds one, `roster_machine.step` the next.

    Attributes:
        me: who we are.
        seed: the epoch's.
        own: our contribution; only those from the same base are of use.
        patience: how long we wait.
        expected: the replicas that were there when we began, besides us.
        began_s: when we began.
        phase: where we stand.
        certificate: what is agreed; the latest one.
        convener: whose turn it is.
        turn_s: since when.
        round: how many times all have had their turn.
        passed: whose turn in this round is over.
        gone: who is no longer there.
        contributions: what came, and when, by peer; ours among them.
        held: the latest proposal of each convener, signed or not.
        signed: what we signed for each attempt, our own proposals among it.
        seen: the first roster seen of each attempt.
        votes: countersignatures by roster and member.
        judged: the attempts that we have signed or found somebody missing from.
        told: whom we have told of the certificate.
    """

    me: Identity
    seed: bytes
    own: Verified[Contribution]
    patience: Patience
    expected: frozenset[PeerId]
    began_s: float
    phase: Phase = Phase.GATHERING
    certificate: RosterCertificate | None = None
    convener: PeerId | None = None
    turn_s: float = 0.0
    round: int = 0
    passed: frozenset[PeerId] = frozenset()
    gone: frozenset[PeerId] = frozenset()
    contributions: Mapping[PeerId, tuple[Verified[Contribution], float]] = field(default_factory=dict)
    held: Mapping[PeerId, Proposal] = field(default_factory=dict)
    signed: Mapping[Attempt, Proposal] = field(default_factory=dict)
    seen: Mapping[Attempt, Verified[Roster]] = field(default_factory=dict)
    votes: Mapping[Digest, Mapping[PeerId, Verified[Roster]]] = field(default_factory=dict)
    judged: frozenset[Attempt] = frozenset()
    told: frozenset[PeerId] = frozenset()
