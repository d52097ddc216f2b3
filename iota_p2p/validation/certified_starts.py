"""What stages began their epochs with: the weights that two thirds of a merge's members signed, as heard by gossip.

A peer that signed what its merge came to began the next epoch with that, or signed one thing and did another. Of a peer
that signed no certificate nothing is said: it may have been left out, and gone on alone.
"""

from dataclasses import dataclass, field

from iota_p2p.membership.member import open_recent
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.merge_certificate import Merge
from iota_p2p_protocols.ids import MERGES
from iota_p2p_protocols.scoring.announcements import KEPT_EPOCHS, validate_certified_merge
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment

# Of one stage and epoch: more than one only where the network was cut into as many parts.
MAX_CERTIFICATES = 8


@dataclass(slots=True)
class CertifiedStarts:
    """Hears merges' certificates.

    Attributes:
        bulletin: through whom.
    """

    bulletin: Bulletin
    _signers: dict[tuple[int, int], dict[bytes, frozenset[PeerId]]] = field(default_factory=dict)

    async def run(self) -> None:
        """Listen until cancelled."""
        async with self.bulletin.member.network.gossip.subscribe(MERGES, self._check) as heard:
            async for one in heard:
                self.take(one)

    def take(self, one: Verified[Merge]) -> None:
        """Remember who signed what a merge came to, by stage and the epoch that begins with it."""
        oldest = self.bulletin.share.epoch - KEPT_EPOCHS
        self._signers = {key: known for key, known in self._signers.items() if key[1] >= oldest}
        known = self._signers.setdefault((one.payload.stage, one.payload.epoch + 1), {})
        theta = one.payload.theta_digest
        if theta in known or len(known) < MAX_CERTIFICATES:
            known[theta] = known.get(theta, frozenset()) | frozenset(one.signers)

    def contradict(self, work: Verified[WorkCommitment]) -> bool:
        """Return whether a peer began an epoch with other weights than those it signed itself."""
        known = self._signers.get((work.payload.stage, work.payload.epoch), {})
        return work.payload.theta_digest not in known and any(work.signer in signers for signers in known.values())

    def _check(self, data: bytes, author: PeerId) -> Verified[Merge]:
        share, now_s = self.bulletin.share, self.bulletin.member.clock()
        return validate_certified_merge(
            data, author, run_id=share.terms.run_id, epoch=share.epoch, now_s=now_s, opener=open_recent
        )
