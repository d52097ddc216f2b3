"""Certifying: members say what came of their merge, and two thirds of them who say the same make a certificate.

Everybody works out the same result, and who did not learns it here. What differs from ours is passed on to the others,
once: a liar may have shown each of us another result, and whoever holds both has the proof. So it is with what came of
a merge, when training has gone on already, and with the mean of a grid's row, on which the other rows wait.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic

import trio

from iota_p2p.merge.letters import LINGER_S, Letter, Letters
from iota_p2p.merge.round import Means
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.roster import RosterCertificate
from iota_p2p_protocols.butterfly.vote import V, join_votes, open_vote_certificate
from iota_p2p_protocols.butterfly.vote_fault import make_vote_fault
from iota_p2p_protocols.message import open_signed, seal_message

# The slowest member has its result by then: it may wait for the dead in each phase.
CERTIFY_S = 6.0
# Other results than ours that we pass on; where liars are fewer than a third, proofs against so many will do.
MAX_PASSED_ON = 4

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Certifying(Generic[V]):
    """One vote of a roster's members.

    Attributes:
        means: who we are.
        letters: how members talk.
        roster: whose merge it is.
        accuse: told proofs against members that signed two results.
        kind: what they vote on.
        check: raises RemoteProtocolError for a vote that is not about this roster.
        votes: what each member says came of it.
    """

    means: Means
    letters: Letters
    roster: RosterCertificate
    accuse: Callable[[bytes], None]
    kind: type[V]
    check: Callable[[V, RosterCertificate], None]
    votes: dict[PeerId, Verified[V]] = field(default_factory=dict)
    _num_passed_on: int = 0
    _accused: set[PeerId] = field(default_factory=set)

    async def run(self, own: V) -> Verified[V] | None:
        """Return the certificate; None if there is none in time. Call `linger` afterwards.

        Args:
            own: what we came to.
        """
        data = seal_message(own, self.means.identity)
        self.votes[self.means.identity.peer_id] = open_signed(data, self.kind)
        self._send(data)
        until_s = trio.current_time() + CERTIFY_S
        while True:
            self.hear()
            certificate = join_votes(list(self.votes.values()), self.kind)
            if certificate is not None or not await self.letters.more(until_s):
                return certificate

    async def linger(self) -> None:
        """Hear for a moment more what others signed, for proofs only."""
        until_s = trio.current_time() + LINGER_S
        while await self.letters.more(until_s):
            self.hear()

    def hear(self) -> None:
        """Take the votes that have come."""
        for letter in self.letters.read(self.kind.about):
            self._take(letter)

    def _send(self, data: bytes) -> None:
        self.letters.send(self.kind.about, data, self.roster.members)

    def _take(self, letter: Letter) -> None:
        try:
            with self.means.streams.ledger.charging(letter.sender):
                vote = open_signed(letter.data, self.kind)
                self.check(vote.payload, self.roster)
                if len(vote.signers) > 1:
                    open_vote_certificate(letter.data, self.kind)
        except RemoteProtocolError as error:
            _log.warning("vote refused", extra={"peer": letter.sender, "reason": str(error), "what": self.kind.about})
            return
        for signer in vote.signers:
            if signer in self.roster.members:
                self._count(signer, vote)

    def _count(self, signer: PeerId, vote: Verified[V]) -> None:
        """Count a vote: a member's first one, and against it if it has another."""
        known = self.votes.get(signer)
        if known is None:
            self.votes[signer] = vote
            ours = self.votes[self.means.identity.peer_id]
            if vote.digest != ours.digest and self._num_passed_on < MAX_PASSED_ON:
                self._num_passed_on += 1
                self._send(vote.envelope_bytes)
        elif known.digest != vote.digest and signer not in self._accused:
            self._accused.add(signer)  # one proof of each will do
            self.accuse(make_vote_fault(known, vote, signer))
