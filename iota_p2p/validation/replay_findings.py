"""What other validators' replays have found lately, as it came by gossip, and telling them what ours found."""

import logging
from dataclasses import dataclass, field
from math import floor

from iota_p2p.membership.member import open_recent
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.ids import FINDINGS
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.announcements import KEPT_EPOCHS, validate_of_epoch
from iota_p2p_protocols.scoring.replay_draw import Pair
from iota_p2p_protocols.scoring.replay_finding import ReplayFinding

# Of one validator and epoch: each costs whoever checks it a segment, and an honest one finds that many only where most
# peers cheat.
MAX_FINDINGS = 4
# Validators of one epoch that are listened to; no run has more peers (`view.MAX_PEERS`).
MAX_FINDERS = 4096
LIFETIME_S = 86_400

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ReplayFindings:
    """Hears and tells findings.

    Attributes:
        bulletin: through whom.
    """

    bulletin: Bulletin
    _heard: dict[int, dict[PeerId, list[Verified[ReplayFinding]]]] = field(default_factory=dict)
    _criers: set[PeerId] = field(default_factory=set)  # of wolf

    async def run(self) -> None:
        """Listen until cancelled."""
        async with self.bulletin.member.network.gossip.subscribe(FINDINGS, self._check) as heard:
            async for one in heard:
                self.take(one)

    def take(self, one: Verified[ReplayFinding]) -> None:
        """Remember a finding."""
        oldest = self.bulletin.share.epoch - KEPT_EPOCHS
        self._heard = {epoch: found for epoch, found in self._heard.items() if epoch >= oldest}
        of_epoch = self._heard.setdefault(one.payload.epoch, {})
        if one.signer in of_epoch or len(of_epoch) < MAX_FINDERS:
            known = of_epoch.setdefault(one.signer, [])
            if len(known) < MAX_FINDINGS:
                known.append(one)

    def of(self, epoch: int) -> list[Verified[ReplayFinding]]:
        """Return what was found in an epoch's work, but for those who have once cried wolf."""
        heard = self._heard.get(epoch, {})
        return [one for signer, found in heard.items() if signer not in self._criers for one in found]

    def distrust(self, signer: PeerId) -> None:
        """Listen no more to somebody whose finding was none: checking it cost a segment."""
        _log.warning("found nothing where it was told to look", extra={"peer": signer})
        self._criers.add(signer)

    async def tell(self, epoch: int, pair: Pair, segment: int | None) -> None:
        """Tell the others where to look."""
        member, (peer_id, stage) = self.bulletin.member, pair
        now_s = member.clock()
        finding = ReplayFinding(
            run_id=self.bulletin.share.terms.run_id,
            sequence=floor(now_s * 1000),
            issued_s=floor(now_s),
            expires_s=floor(now_s) + LIFETIME_S,
            epoch=epoch,
            peer=peer_id,
            stage=stage,
            segment=segment,
        )
        await self.bulletin.publish(FINDINGS, open_signed(seal_message(finding, member.identity), ReplayFinding))

    def _check(self, data: bytes, author: PeerId) -> Verified[ReplayFinding]:
        share, now_s = self.bulletin.share, self.bulletin.member.clock()
        return validate_of_epoch(
            data,
            author,
            ReplayFinding,
            run_id=share.terms.run_id,
            epoch=share.epoch,
            now_s=now_s,
            opener=open_recent,
        )
