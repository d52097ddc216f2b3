"""How signed facts enter the view, whether they came by gossip or by exchange."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from iota_p2p.membership.member import Member, domain_of_recent, open_recent
from iota_p2p_crypto.domains import ABSENCE, ADVERT
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.absence import Absence, check_watcher, validate_absence_gossip
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.errors import IgnoreError, MalformedError, StaleError
from iota_p2p_protocols.message import open_gossip, open_message


@dataclass(slots=True)
class Intake:
    """Checks signed facts and puts them into a member's view.

    Attributes:
        member: whose view.
        on_returned: told when gossip brings back a peer that was believed gone.
    """

    member: Member
    on_returned: Callable[[], None] = lambda: None

    def hear_advert(self, data: bytes, author: PeerId) -> None:
        """Take an advert from gossip; raises IgnoreError or RejectError."""
        now_s = self.member.clock()
        advert = open_gossip(data, author, Advert, run_id=self.member.run_id, now_s=now_s, opener=open_recent)
        view = self.member.view
        was_gone = view.advert_of(author) is not None and not view.is_live(author)
        view.receive_advert(advert)
        self.member.note_changes()
        if was_gone and view.is_live(author):
            self.on_returned()

    def hear_absence(self, data: bytes, author: PeerId) -> None:
        """Take an absence from gossip; raises IgnoreError or RejectError."""
        now_s = self.member.clock()
        absence = validate_absence_gossip(data, author, run_id=self.member.run_id, now_s=now_s, opener=open_recent)
        self.member.view.receive_absence(absence)
        self.member.note_changes()

    def take_all(self, envelopes: Iterable[bytes]) -> int:
        """Take adverts and absences that a peer passed on in an exchange; return how many were news.

        Adverts go first, because an absence only counts beside the advert it speaks of. What has expired meanwhile
        is passed over: clocks differ.

        Raises:
            RemoteProtocolError: if one is forged, malformed or of another run: the peer should have checked.
        """
        adverts, absences = [], []
        for data in envelopes:
            domain = domain_of_recent(data)
            if domain == ADVERT:
                adverts.append(data)
            elif domain == ABSENCE:
                absences.append(data)
            else:
                raise MalformedError("view-entry-type", f"expected adverts and absences, got {domain.name}")
        try:
            news = sum(self._take_advert(data) for data in adverts)
            return news + sum(self._take_absence(data) for data in absences)
        finally:
            self.member.note_changes()

    def take_doubts(self, envelopes: Iterable[bytes]) -> int:
        """Take what a peer knows of our own absence; return how much was news. Raises as `take_all`."""
        me = self.member.identity.peer_id
        try:
            return sum(self._take_absence(data, only_about=me) for data in envelopes)
        finally:
            self.member.note_changes()

    def _take_advert(self, data: bytes) -> bool:
        try:
            advert = open_message(
                data, Advert, run_id=self.member.run_id, now_s=self.member.clock(), opener=open_recent
            )
            self.member.view.receive_advert(advert)
        except (IgnoreError, StaleError):
            return False
        return True

    def _take_absence(self, data: bytes, only_about: PeerId | None = None) -> bool:
        try:
            absence = open_message(
                data, Absence, run_id=self.member.run_id, now_s=self.member.clock(), opener=open_recent
            )
            check_watcher(absence)
            if only_about is not None and absence.payload.peer_id != only_about:
                return False
            self.member.view.receive_absence(absence)
        except (IgnoreError, StaleError):
            return False
        return True
