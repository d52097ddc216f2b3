"""Watching: we hold a line to our ring successors, and say so when one goes dead.

The line is a `watch` call that the watched peer never answers. Its end tells us of a crash within a
round trip; a hung or cut-off peer is found by the exchanges of `membership`, which go to watched peers most often.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import floor
from random import Random

import trio

from iota_p2p.membership.member import Member, open_recent
from iota_p2p.network.streams import Request, Response
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import LIFETIME_S
from iota_p2p_protocols.errors import IgnoreError, PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import ABSENCES, WATCH
from iota_p2p_protocols.message import seal_message

# How long a peer whose line broke, or that did not answer, has to prove that it is there.
CONFIRM_TIMEOUT_S = 3.0
# Then each watcher hesitates for so long, and asks once more. At least: a daemon that died is back in 0.3 s, and calls
# the others by itself. At most: all watchers of a peer see it die at once, and not all of them need to say so.
MIN_HESITATION_S, MAX_HESITATION_S = 0.5, 1.5
# The ring is looked at again at most this often, however fast the view changes.
MIN_ROUND_S = 0.5
# Views disagree for a moment, so more than NUM_WATCHED may watch us; beyond this it is somebody holding our calls.
MAX_WATCHERS = 16
# A peer that refuses our line (it has enough) or breaks it at once is asked again after this time.
RETRY_S = 5.0


@dataclass(slots=True)
class Watcher:
    """Holds lines to our ring successors and publishes absences.

    Attributes:
        member: who we are and what we believe.
        confirm: asks a peer for any sign of life; raises if there is none.
    """

    member: Member
    confirm: Callable[[PeerId], Awaitable[object]]
    _lines: dict[PeerId, trio.CancelScope] = field(default_factory=dict)
    _sequence: int = 0
    _num_watchers: int = 0

    async def run(self) -> None:
        """Watch for as long as the caller's nursery lives."""
        await self.member.network.streams.serve(WATCH, self._be_watched)
        async with trio.open_nursery() as nursery:
            while True:
                changed = self.member.changed
                self._follow_ring(nursery)
                await trio.sleep(MIN_ROUND_S)
                await changed.wait()

    @property
    def watched(self) -> tuple[PeerId, ...]:
        """The peers we watch now."""
        return tuple(self._lines)

    async def doubt(self, peer_id: PeerId) -> None:
        """Ask a peer that seems gone for a sign of life; publish its absence if there is none.

        When it was our own node that was down, nobody could answer, and we ask again with the next one. This is also
        how a peer whose daemon died hears at once what it missed, and what was said of itself.
        """
        while True:
            advert = self.member.view.advert_of(peer_id)
            if advert is None or not self.member.view.is_live(peer_id):
                return  # others have said enough meanwhile
            run = await self.member.network.host.settled()
            if await self._answers(peer_id, self.member.rng(f"doubt {peer_id} {advert.sequence}")):
                return
            if run == await self.member.network.host.settled():
                break
        if self.member.view.is_live(peer_id):
            await self._declare_absent(peer_id, advert.sequence)

    async def _answers(self, peer_id: PeerId, hesitation: Random) -> bool:
        """Ask, and once more after a pause unless the first time took all our patience."""
        give_up_s = trio.current_time() + CONFIRM_TIMEOUT_S
        for pause_s in (0.0, hesitation.uniform(MIN_HESITATION_S, MAX_HESITATION_S)):
            await trio.sleep(pause_s)
            try:
                with trio.fail_at(give_up_s):
                    await self.confirm(peer_id)
            except (trio.TooSlowError, PeerUnavailableError):
                continue
            except (RefusedError, RemoteProtocolError):
                pass  # it answered, if badly
            return True
        return False

    def _follow_ring(self, nursery: trio.Nursery) -> None:
        wanted = set(self.member.view.watched())
        for peer_id in self._lines.keys() - wanted:
            self._lines.pop(peer_id).cancel()
        for peer_id in sorted(wanted - self._lines.keys()):
            self._lines[peer_id] = trio.CancelScope()
            nursery.start_soon(self._hold_line, peer_id, self._lines[peer_id], nursery)

    async def _hold_line(self, peer_id: PeerId, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        with scope:
            while True:
                try:
                    await self.member.network.streams.call(peer_id, WATCH, Request({}))
                except PeerUnavailableError:
                    # In a task of its own: once we believe it gone it is off the ring, and this line is cut.
                    nursery.start_soon(self.doubt, peer_id)
                except (RefusedError, RemoteProtocolError):
                    pass
                await trio.sleep(RETRY_S)

    async def _be_watched(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may
        if self._num_watchers >= MAX_WATCHERS:
            raise RefusedError("watched-enough", f"expected at most {MAX_WATCHERS} watchers, got one more")
        self._num_watchers += 1
        try:
            await trio.sleep_forever()
        finally:
            self._num_watchers -= 1

    async def _declare_absent(self, peer_id: PeerId, advert_sequence: int) -> None:
        now_s = floor(self.member.clock())
        self._sequence = max(self._sequence + 1, floor(self.member.clock() * 1000))
        absence = Absence(
            run_id=self.member.run_id,
            sequence=self._sequence,
            issued_s=now_s,
            expires_s=now_s + LIFETIME_S,
            peer_id=peer_id,
            advert_sequence=advert_sequence,
        )
        data = seal_message(absence, self.member.identity)
        try:
            self.member.view.receive_absence(open_recent(data, Absence))
            self.member.note_changes()
        except IgnoreError:
            return  # it refuted, or left, while we waited
        try:
            await self.member.network.gossip.publish(ABSENCES, data)
        except PeerUnavailableError:
            return  # exchanges will spread it
