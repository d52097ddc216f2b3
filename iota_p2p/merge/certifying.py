"""Certifying: members say what came of their merge, and two thirds of them who say the same make a certificate.

Training has gone on by then: everybody works out the same result, and who did not learns it here.
"""

import logging
from dataclasses import dataclass, field

import trio

from iota_p2p.merge.letters import Letter, Letters
from iota_p2p.merge.round import Means
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.merge_certificate import Merge, check_merge, join_merges, open_merge_certificate
from iota_p2p_protocols.butterfly.roster import RosterCertificate
from iota_p2p_protocols.message import open_signed, seal_message

# The slowest member has its result by then: it may wait for the dead in each phase.
CERTIFY_S = 6.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Certifying:
    """The end of one merge.

    Attributes:
        means: who we are.
        letters: how members talk.
        roster: whose merge it is.
        votes: what each member says came of it.
    """

    means: Means
    letters: Letters
    roster: RosterCertificate
    votes: dict[PeerId, Verified[Merge]] = field(default_factory=dict)

    async def run(self, own: Merge | None) -> Verified[Merge] | None:
        """Return the certificate; None if there is none in time.

        Args:
            own: what we came to; None if something was missing.
        """
        if own is not None:
            data = seal_message(own, self.means.identity)
            self.votes[self.means.identity.peer_id] = open_signed(data, Merge)
            self.letters.send("merge", data, self.roster.members)
        until_s = trio.current_time() + CERTIFY_S
        while True:
            for letter in self.letters.read("merge"):
                self._take(letter)
            certificate = join_merges(list(self.votes.values()))
            if certificate is not None or not await self.letters.more(until_s):
                return certificate

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
                self.votes.setdefault(signer, merge)
