"""`MeetingPoint`: how replicas of a stage find each other for a merge when adverts and gossip did not tell.

Whoever holds a stage provides the key of its merge at an epoch's end in the DHT, from the epoch's beginning on, and
looks there for others; so the DHT's seconds pass while the stage trains. Who is found there and answers for the stage
is expected at the merge as if the view had it.

Anybody can provide a key. So those who are found are few at most, never more than the view knows if that is more, and
one who did not come to a merge is not waited for again until it has. Until it has come to one, nothing else that it
says is believed: not that the others are through, nor what they came to. So what a stranger can cost is the patience
with which a meeting waits for anybody, and what it can bring is a signed contribution, like all others.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p.network.rendezvous import Rendezvous
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import meeting_purpose
from iota_p2p_protocols.butterfly.exchange import Base
from iota_p2p_protocols.butterfly.grid import Seat, take_seat

# Replicas come to an epoch at about the same time, and records need half a second to be where all look.
FIRST_LOOK_S = 1.0
# For those that take the stage within the epoch.
LOOK_EVERY_S = 10.0
# A lookup takes 0.2 s; one that takes longer has met dead hosts only.
LOOK_TIMEOUT_S = 10.0
# Records taken from one lookup: of them most are the replicas that the view has anyway.
MAX_RECORDS = 64
# Who may be expected besides those in the view, if the view has fewer: replicas of which we know none are rarely more.
MIN_FOUND = 4
# Those who did not come, remembered: identities cost nothing, and forgetting one costs one merge's patience.
MAX_ABSENT = 256

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class MeetingPoint:
    """Where one stage's replicas find each other.

    Attributes:
        rendezvous: the DHT's records.
        me: who we are.
        stage: the stage.
        known: returns its other replicas as the view has them.
        ask: returns what those who answer began their epoch of the stage with.
        found: who else answers for the stage.
        seat: who meets whom in the last merge that we came to, as far as we knew then.
    """

    rendezvous: Rendezvous
    me: PeerId
    stage: int
    known: Callable[[], Collection[PeerId]]
    ask: Callable[[Sequence[PeerId]], Awaitable[Mapping[PeerId, Base]]]
    found: set[PeerId] = field(default_factory=set)
    seat: Seat = field(init=False)
    _came: set[PeerId] = field(default_factory=set)  # of the found, those that were at a merge
    _absent: dict[PeerId, None] = field(default_factory=dict)  # in the order in which they did not come
    _attending: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        """Begin as one of which no others are known."""
        self.seat = Seat(self.me, ((self.me,),), 0)

    def others(self) -> list[PeerId]:
        """Return the stage's other replicas, those of the view and those found."""
        known = set(self.known()) - {self.me}
        self.found -= known  # from now on the view says whether they are there
        return sorted(known | self.found)

    def take_seat(self, seed: bytes, most: int) -> None:
        """Draw who meets whom, at an epoch's end: more than `most` replicas are a grid of rows (`grid`)."""
        self.seat = take_seat(seed, self.stage, self.me, self.others(), most)

    @property
    def num_rows(self) -> int:
        """How many rows there are; one where all replicas meet."""
        return len(self.seat.rows)

    def expected(self) -> list[PeerId]:
        """Return who is there to meet us, ourselves among them: all replicas, or of a grid our row."""
        return [*(one for one in self.others() if self.num_rows == 1 or one in self.seat.mates), self.me]

    def vouched(self) -> list[PeerId]:
        """Return those of them whom the view or an earlier merge vouches for."""
        return [peer_id for peer_id in self.others() if peer_id not in self.found - self._came]

    def attend(self, epoch: int, nursery: trio.Nursery) -> None:
        """Be found for the merge at an epoch's end, and look for others, until the next call or `leave`."""
        self.leave()
        self._attending = trio.CancelScope()
        nursery.start_soon(self._attend, epoch, self._attending)

    async def _attend(self, epoch: int, scope: trio.CancelScope) -> None:
        with scope:
            async with self.rendezvous.provided(meeting_purpose(self.stage), epoch):
                await trio.sleep(FIRST_LOOK_S)
                while True:
                    await self.look(epoch)
                    await trio.sleep(LOOK_EVERY_S)

    def leave(self) -> None:
        """Be found no longer."""
        self._attending.cancel()

    async def look(self, epoch: int) -> None:
        """Look once for replicas that the view does not have."""
        peers: Sequence[PeerId] = ()
        try:
            with trio.move_on_after(LOOK_TIMEOUT_S):
                peers = await self.rendezvous.find(meeting_purpose(self.stage), epoch, limit=MAX_RECORDS)
        except PeerUnavailableError as error:
            _log.debug("nobody to ask for replicas", extra={"stage": self.stage, "reason": str(error)})
        known = set(self.known())
        room = max(MIN_FOUND, len(known - {self.me})) - len(self.found - known)
        new = [peer for peer in peers if peer not in known | self.found | self._absent.keys() | {self.me}][:room]
        for peer_id, base in (await self.ask(new)).items():
            if abs(base.epoch - epoch) <= 1:  # it is at this merge soon, or has just been
                _log.info("replica found by rendezvous", extra={"stage": self.stage, "peer": peer_id})
                self.found.add(peer_id)

    def met(self, members: Collection[PeerId]) -> None:
        """Note who took part in a merge: of those who were found only they are expected again."""
        self._absent = {peer_id: None for peer_id in self._absent if peer_id not in members}
        for peer_id in sorted(self.found - set(members)):
            self._absent[peer_id] = None
        self._absent = dict(list(self._absent.items())[-MAX_ABSENT:])
        self.found &= set(members)
        self._came = set(self.found)
