"""A room of members that make a roster: their machines, and letters that come late, twice, or never."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from random import Random

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.meeting import (
    DEFAULT_PATIENCE,
    Accuse,
    Agreed,
    Contributed,
    Countersigned,
    Event,
    Gone,
    LeftOut,
    Meeting,
    Patience,
    Proposed,
    Send,
    Tick,
)
from iota_p2p_protocols.butterfly.roster import Roster, open_proposal
from iota_p2p_protocols.butterfly.roster_machine import begin, step, wake_at_s
from iota_p2p_protocols.butterfly.turns import Step
from iota_p2p_protocols.message import open_signed
from tests.butterfly.rosters import SEED

opened = lru_cache(4096)(open_signed)
proposed = lru_cache(512)(lambda data: open_proposal(data, opened))
Delay = Callable[[PeerId, PeerId, Random], float | None]  # of a letter from one to another; None if it is lost


def soon(_: PeerId, __: PeerId, rng: Random) -> float:
    return rng.uniform(0.001, 0.2)


@dataclass
class Room:
    """Members that talk.

    Attributes:
        seed: of all chance there is.
        delay: of each letter.
        twice: the share of letters that come twice.
        meetings: the honest members' state.
        heard_by_liars: letters that went to somebody without a machine: (when, to, from, letter).
        faults: what honest members accuse others with.
        signed: what the honest have signed of each attempt; more than one roster would convict them.
        dead: who does and hears nothing any more.
        num_letters: sent so far.
        now_s: what time it is.
    """

    seed: int
    delay: Delay = soon
    twice: float = 0.0
    meetings: dict[PeerId, Meeting] = field(default_factory=dict)
    heard_by_liars: list[tuple[float, PeerId, PeerId, Send]] = field(default_factory=list)
    faults: set[bytes] = field(default_factory=set)
    signed: dict[tuple[PeerId, str, int], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    dead: set[PeerId] = field(default_factory=set)
    num_letters: int = 0
    now_s: float = 0.0
    _order: "count[int]" = field(default_factory=count)
    _due: list[tuple[float, int, PeerId, Event | tuple[PeerId, Send]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)  # noqa: S311 - chance, no secret

    def join(
        self,
        me: Identity,
        own: Verified[Contribution],
        everybody: Sequence[Identity],
        at_s: float = 0.0,
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        """Let a member begin; letters that come before wait for it."""
        self.now_s = at_s
        expected = frozenset(peer.peer_id for peer in everybody)
        self._after(me.peer_id, begin(me, SEED, own, expected, now_s=at_s, patience=patience))

    def send(self, sender: PeerId, letter: Send) -> None:
        """Bring a letter to all it is for."""
        for to in letter.to:
            for _ in range(2 if self.rng.random() < self.twice else 1):
                delay_s = self.delay(sender, to, self.rng)
                self.num_letters += 1
                if delay_s is not None:
                    self._put(self.now_s + delay_s, to, (sender, letter))

    def kill(self, peer_id: PeerId, noticed_s: float = 0.5) -> None:
        """Stop a member; the others notice it within a while."""
        self.dead.add(peer_id)
        for other in self.meetings:
            self._put(self.now_s + self.rng.uniform(0, noticed_s), other, Gone(peer_id))

    def run_until_agreed(self, until_s: float) -> None:
        """Let things happen until all that live have a certificate, or until a time."""
        self._run(until_s, self._all_settled)

    def run(self, until_s: float) -> None:
        """Let things happen until a time."""
        self._run(until_s, lambda: False)

    def _run(self, until_s: float, over: Callable[[], bool]) -> None:
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, to, what = heapq.heappop(self._due)
            if to in self.dead:
                continue
            if to not in self.meetings:
                if isinstance(what, tuple):
                    self.heard_by_liars.append((self.now_s, to, *what))
                continue
            event = what if not isinstance(what, tuple) else self.opened(what[1], what[0])
            self._after(to, step(self.meetings[to], event, self.now_s))
            if over():
                return
        self.now_s = max(self.now_s, until_s)

    def tell(self, peer_id: PeerId, event: Event) -> None:
        """Let a member hear of something now."""
        self._after(peer_id, step(self.meetings[peer_id], event, self.now_s))

    @staticmethod
    def opened(letter: Send, sender: PeerId) -> Event:
        """Open a letter, as the shell does."""
        if letter.what == "contribution":
            return Contributed(opened(letter.data, Contribution), sender)
        if letter.what == "roster":
            return Proposed(proposed(letter.data), sender)
        return Countersigned(opened(letter.data, Roster), sender)

    def outcomes(self) -> Mapping[PeerId, bytes | None]:
        """Return the roster that each living honest member ended with."""
        return {
            peer_id: None if meeting.certificate is None else meeting.certificate.digest
            for peer_id, meeting in self.meetings.items()
            if peer_id not in self.dead
        }

    def _all_settled(self) -> bool:
        living = (meeting for peer_id, meeting in self.meetings.items() if peer_id not in self.dead)
        return all(meeting.certificate is not None for meeting in living)

    def _note(self, me: PeerId, said: Event) -> None:
        if isinstance(said, Countersigned | Proposed):
            roster = said.roster if isinstance(said, Countersigned) else said.proposal.roster
            if me in roster.signers:
                self.signed[me, roster.payload.convener, roster.payload.attempt].add(roster.digest)

    def _put(self, at_s: float, to: PeerId, what: Event | tuple[PeerId, Send]) -> None:
        heapq.heappush(self._due, (at_s, next(self._order), to, what))

    def _after(self, me: PeerId, after: Step) -> None:
        before = self.meetings.get(me)
        self.meetings[me], effects = after
        for effect in effects:
            if isinstance(effect, Send):
                self._note(me, self.opened(effect, me))
                self.send(me, effect)
            elif isinstance(effect, Accuse):
                self.faults.add(effect.fault)
            else:
                assert isinstance(effect, Agreed | LeftOut)
        wake_s = wake_at_s(self.meetings[me])
        if wake_s is not None and (before is None or wake_at_s(before) != wake_s):
            self._put(max(wake_s, self.now_s), me, Tick())
