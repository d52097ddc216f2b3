"""`MeetingTask`: drives the roster machine (`roster_machine`) with letters, the view and the clock."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import inf

import trio

from iota_p2p.merge.letters import Letter, Letters
from iota_p2p.merge.round import Means
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly import roster_machine
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.meeting import (
    Accuse,
    Agreed,
    Contributed,
    Countersigned,
    Effect,
    Event,
    Gone,
    LeftOut,
    Meeting,
    Patience,
    Phase,
    Proposed,
    Send,
    Tick,
)
from iota_p2p_protocols.butterfly.roster import Roster, RosterCertificate, open_proposal
from iota_p2p_protocols.message import open_signed

# A killed peer may cost 3 s in all. Whoever is there sees within a second that the epoch is over, on a loaded machine.
PATIENCE = Patience(gather_s=2.0, convene_s=0.7, grace_s=0.4)
LOOK_EVERY_S = 0.2  # who is still there

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class MeetingTask:
    """One stage's meeting on one epoch.

    Attributes:
        means: who we are.
        letters: how members talk.
        own: our contribution.
        seed: the epoch's.
        expected: returns the replicas that are there, as far as we know.
        vouched: returns those of the others who are believed when they say that they are through.
        check: raises RemoteProtocolError for a contribution that does not fit the stage.
        certificate: what was agreed; it may be replaced by a later one.
        left_out: True once the merge goes on without us, or cannot be.
        faults: proofs of what others did wrong.
    """

    means: Means
    letters: Letters
    own: Verified[Contribution]
    seed: bytes
    expected: Callable[[], Collection[PeerId]]
    vouched: Callable[[], Collection[PeerId]]
    check: Callable[[Verified[Contribution]], None]
    certificate: RosterCertificate | None = None
    left_out: bool = False
    faults: list[bytes] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)
    _gone: set[PeerId] = field(default_factory=set)
    _welcomed: set[PeerId] = field(default_factory=set)

    async def run(self) -> None:
        """Meet until cancelled: stragglers need the certificate, too."""
        now_s = trio.current_time()
        expected = frozenset(self.expected())
        meeting, effects = roster_machine.begin(
            self.means.identity, self.seed, self.own, expected, now_s=now_s, patience=PATIENCE
        )
        self._do(meeting, effects)
        while True:
            self._welcome(expected)
            for event in self._events(expected):
                meeting, effects = roster_machine.step(meeting, event, trio.current_time())
                self._do(meeting, effects)
            if meeting.phase is Phase.GIVEN_UP or self._is_late(expected):
                self._tell_left_out()
            wake_s = roster_machine.wake_at_s(meeting)
            look_s = trio.current_time() + LOOK_EVERY_S
            await self.letters.more(min(look_s, inf if wake_s is None else wake_s))
            if wake_s is not None and trio.current_time() >= wake_s:
                meeting, effects = roster_machine.step(meeting, Tick(), trio.current_time())
                self._do(meeting, effects)

    def _is_late(self, expected: Collection[PeerId]) -> bool:
        """Return whether most of the others are through with a merge that we know nothing of."""
        merged = self.letters.merged.intersection(self.vouched())
        return self.certificate is None and 2 * len(merged) > len(expected) - 1

    def _welcome(self, expected: Collection[PeerId]) -> None:
        """Send our contribution to those who have come into sight since we began; they are not waited for."""
        new = {*self.expected()} - {*expected} - self._welcomed
        self._welcomed |= new
        self.letters.send("contribution", self.own.envelope_bytes, sorted(new))

    def _events(self, expected: Collection[PeerId]) -> Sequence[Event]:
        gone = set(expected) - set(self.expected()) - self._gone
        self._gone |= gone
        events: list[Event] = [Gone(peer_id) for peer_id in sorted(gone)]
        for letter in self.letters.read("contribution", "roster", "countersignature"):
            try:
                with self.means.streams.ledger.charging(letter.sender):
                    events.append(self._open(letter))
            except RemoteProtocolError as error:
                _log.warning("letter refused", extra={"peer": letter.sender, "reason": str(error)})
        return events

    def _open(self, letter: Letter) -> Event:
        if letter.what == "contribution":
            contribution = open_signed(letter.data, Contribution)
            self.check(contribution)
            return Contributed(contribution, letter.sender)
        if letter.what == "roster":
            return Proposed(open_proposal(letter.data), letter.sender)
        return Countersigned(open_signed(letter.data, Roster), letter.sender)

    def _do(self, meeting: Meeting, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self.letters.send(effect.what, effect.data, effect.to)
                case Agreed() if _gives_way(meeting) or not _names(effect.certificate, self.own):
                    self._tell_left_out()
                case Agreed():
                    self.certificate = effect.certificate
                    self._tell()
                case LeftOut():
                    self._tell_left_out()
                case Accuse():
                    self.faults.append(effect.fault)

    def _tell_left_out(self) -> None:
        if not self.left_out:
            self.left_out = True
            self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


def _names(certificate: RosterCertificate, own: Verified[Contribution]) -> bool:
    """Return whether it is this contribution of ours that counts, and not one that we made before we lost our notes."""
    return own.digest in {contribution.digest for contribution in certificate.contributions}


def _gives_way(meeting: Meeting) -> bool:
    """Return whether a larger group of contributors began with other weights; of two equal groups one gives way."""
    votes = Counter(one.payload.base_digest for one, _ in meeting.contributions.values())
    return meeting.own.payload.base_digest != min(votes, key=lambda base: (-votes[base], base))
