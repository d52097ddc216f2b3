"""Attendance: which peers were there, look by look, in the current epoch and the ones still to be scored."""

from dataclasses import dataclass, field

import trio

from iota_p2p.membership.member import Member
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.announcements import KEPT_EPOCHS
from iota_p2p_protocols.scoring.fast_checks import PPM

LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class Attendance:
    """Counts looks at the view.

    Attributes:
        member: whose view.
        share: whose epoch it is.
    """

    member: Member
    share: WorkShare
    _looks: dict[int, int] = field(default_factory=dict)
    _seen: dict[int, dict[PeerId, tuple[int, int]]] = field(default_factory=dict)  # first look, looks it was there

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await trio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Note who is there now."""
        epoch = self.share.epoch
        number = self._looks[epoch] = self._looks.get(epoch, 0) + 1
        seen = self._seen.setdefault(epoch, {})
        for peer_id in self.member.view.live():
            first, times = seen.get(peer_id, (number, 0))
            seen[peer_id] = (first, times + 1)
        for old in [of for of in self._looks if of < epoch - KEPT_EPOCHS]:
            del self._looks[old], self._seen[old]

    def presence_ppm(self, epoch: int) -> dict[PeerId, int]:
        """Return for everybody who was there at all in how many of the looks since its first one it was."""
        looks = self._looks.get(epoch, 0)
        return {
            peer_id: PPM * times // (looks - first + 1) for peer_id, (first, times) in self._seen.get(epoch, {}).items()
        }
