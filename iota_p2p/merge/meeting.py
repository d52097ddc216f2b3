"""Meeting: the replicas of a stage agree on whose contributions make the merge."""

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import trio

from iota_p2p.merge.letters import Letter, Letters
from iota_p2p.merge.round import Means
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.convener import convener_order
from iota_p2p_protocols.butterfly.roster import (
    Proposal,
    Roster,
    RosterCertificate,
    certified,
    countersign,
    join_signatures,
    open_proposal,
    propose,
    quorum,
)
from iota_p2p_protocols.message import open_signed

# How long a replica that is there may take to see that the epoch is over and to commit.
CONTRIBUTIONS_S = 1.0
ATTEMPT_S = 0.6
MEETING_S = 6.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Meeting:
    """One stage's meeting on one epoch.

    Attributes:
        means: who we are.
        letters: how members talk.
        own: our contribution.
        seed: the epoch's.
        expected: returns the replicas that are there, as far as we know.
        check: raises RemoteProtocolError for a contribution that does not fit the stage.
    """

    means: Means
    letters: Letters
    own: Verified[Contribution]
    seed: bytes
    expected: Callable[[], Collection[PeerId]]
    check: Callable[[Verified[Contribution]], None]
    _contributions: dict[PeerId, Verified[Contribution]] = field(default_factory=dict)
    _proposal: Proposal | None = None
    _certificate: RosterCertificate | None = None
    _tried: set[int] = field(default_factory=set)

    async def run(self) -> RosterCertificate | None:
        """Return the certificate; None if there is none in time."""
        began_s = trio.current_time()
        self._contributions[self.own.signer] = self.own
        self.letters.send("contribution", self.own.envelope_bytes, self.expected())
        ready_s: float | None = None
        while trio.current_time() < began_s + MEETING_S:
            for letter in self.letters.read("contribution", "roster", "countersignature"):
                self._read(letter)
            if self._certificate is not None:
                return self._certificate
            now_s = trio.current_time()
            if ready_s is None and (
                set(self.expected()) <= set(self._contributions) or now_s >= began_s + CONTRIBUTIONS_S
            ):
                ready_s = now_s
            if ready_s is not None:
                if not self._is_in_largest_group:
                    return None
                self._convene(int((now_s - ready_s) / ATTEMPT_S))
                if self._certificate is not None:
                    return self._certificate
            await self.letters.more(now_s + 0.1)
        return None

    def _mine(self) -> list[Verified[Contribution]]:
        """Return the contributions that have our base."""
        base = self.own.payload.base_digest
        return [one for one in self._contributions.values() if one.payload.base_digest == base]

    @property
    def _is_in_largest_group(self) -> bool:
        """Whether no larger group of contributors began with other weights; of two equal groups one gives way."""
        votes = Counter(one.payload.base_digest for one in self._contributions.values())
        return self.own.payload.base_digest == min(votes, key=lambda base: (-votes[base], base))

    def _convene(self, attempt: int) -> None:
        own = self._mine()
        order = convener_order(self.seed, self.own.payload.stage, [one.signer for one in own])
        if order[attempt % len(order)] != self.own.signer or attempt in self._tried:
            return
        self._tried.add(attempt)
        self._proposal = propose(own, attempt, self.means.identity)
        self.letters.send("roster", self._proposal.data, self._proposal.members)
        self._count()

    def _count(self) -> None:
        proposal = self._proposal
        if proposal is not None and len(proposal.roster.signers) >= quorum(len(proposal.members)):
            self._certificate = certified(proposal)
            self.letters.send("roster", self._certificate.data, self._certificate.members)

    def _read(self, letter: Letter) -> None:
        try:
            with self.means.streams.ledger.charging(letter.sender):
                if letter.what == "contribution":
                    self._hear(open_signed(letter.data, Contribution))
                elif letter.what == "roster":
                    self._consider(open_proposal(letter.data))
                else:
                    self._join(open_signed(letter.data, Roster))
        except RemoteProtocolError as error:
            _log.warning("letter refused", extra={"peer": letter.sender, "reason": str(error)})

    def _hear(self, contribution: Verified[Contribution]) -> None:
        mine, its = self.own.payload, contribution.payload
        if (its.run_id, its.epoch, its.stage) == (mine.run_id, mine.epoch, mine.stage):
            self.check(contribution)
            self._contributions.setdefault(contribution.signer, contribution)

    def _consider(self, proposal: Proposal) -> None:
        for one in proposal.contributions:
            self._hear(one)
        if self.own.signer not in proposal.members:
            return
        if len(proposal.roster.signers) >= quorum(len(proposal.members)):
            self._certificate = certified(proposal)
        elif {one.signer for one in self._mine()} <= set(proposal.members):
            vote = countersign(proposal, self.means.identity)
            self.letters.send("countersignature", vote.envelope_bytes, proposal.roster.signers)

    def _join(self, vote: Verified[Roster]) -> None:
        if self._proposal is not None and vote.digest == self._proposal.digest:
            self._proposal = join_signatures(self._proposal, [vote])
            self._count()
