"""Certifying: members say what came of their merge, and two thirds of them who say the same make a certificate.

Training has gone on by then: everybody works out the same result, and who did not learns it here. What differs from
ours is passed on to the others, once: a liar may have shown each of us another result, and whoever holds both has the
proof.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from iota_p2p.merge.letters import LINGER_S, Letter, Letters
from iota_p2p.merge.round import Means
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.merge_certificate import Merge, check_merge, join_merges, open_merge_certificate
from iota_p2p_protocols.butterfly.merge_fault import make_merge_fault
from iota_p2p_protocols.butterfly.roster import RosterCertificate
from iota_p2p_protocols.message import open_signed, seal_message

# The slowest member has its result by then: it may wait for the dead in each phase.
CERTIFY_S = 6.0
# Other results than ours that we pass on; where liars are fewer than a third, proofs against so many will do.
MAX_PASSED_ON = 4

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Certifying:
    """The end of one merge.

    Attributes:
        means: who we are.
        letters: how members talk.
        roster: whose merge it is.
        accuse: told proofs against members that signed two results.
        votes: what each member says came of it.
    """

    means: Means
    letters: Letters
    roster: RosterCertificate
    accuse: Callable[[bytes], None]
    votes: dict[PeerId, Verified[Merge]] = field(default_factory=dict)
    _num_passed_on: int = 0
    _accused: set[PeerId] = field(default_factory=set)

    async def run(self, own: Merge) -> Verified[Merge] | None:
        """Return the certificate; None if there is none in time. Call `linger` afterwards.

        Args:
            own: what we came to.
        """
        data = seal_message(own, self.means.identity)
        self.votes[self.means.identity.peer_id] = open_signed(data, Merge)
        self._send(data)
        until_s = trio.current_time() + CERTIFY_S
        while True:
            for letter in self.letters.read("merge"):
                self._take(letter)
            certificate = join_merges(list(self.votes.values()))
            if certificate is not None or not await self.letters.more(until_s):
                return certificate

    async def linger(self) -> None:
        """Hear for a moment more what others signed, for proofs only, and bring our last letters."""
        self.letters.end()
        until_s = trio.current_time() + LINGER_S
        while await self.letters.more(until_s):
            for letter in self.letters.read("merge"):
                self._take(letter)

    def _send(self, data: bytes) -> None:
        self.letters.send("merge", data, self.roster.members)

    def _take(self, letter: Letter) -> None:
        try:
            with self.means.streams.ledger.charging(letter.sender):
                merge = open_signed(letter.data, Merge)
                check_merge(merge.payload, self.roster)
                if len(merge.signers) > 1:
                    open_merge_certificate(letter.data)
        except RemoteProtocolError as error:
            _log.warning("merge refused", extra={"peer": letter.sender, "reason": str(error)})
            return
        for signer in merge.signers:
            if signer in self.roster.members:
                self._count(signer, merge)

    def _count(self, signer: PeerId, merge: Verified[Merge]) -> None:
        """Count a vote: a member's first one, and against it if it has another."""
        known = self.votes.get(signer)
        if known is None:
            self.votes[signer] = merge
            ours = self.votes[self.means.identity.peer_id]
            if merge.digest != ours.digest and self._num_passed_on < MAX_PASSED_ON:
                self._num_passed_on += 1
                self._send(merge.envelope_bytes)
        elif known.digest != merge.digest and signer not in self._accused:
            self._accused.add(signer)  # one proof of each will do
            self.accuse(make_merge_fault(known, merge, signer))
