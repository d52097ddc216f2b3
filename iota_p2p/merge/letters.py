"""`Letters`: what the members of one merge send each other, signed, each to all.

A letter goes to every member over a stream, one after the other, and again until it is taken or the merge is over:
others may come to the merge a little later. Letters that come are kept unread until the merge's phase asks for their
kind.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

import trio

from iota_p2p.merge.round import Means
from iota_p2p.network.streams import Request
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.exchange import Note, What
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import MERGE

# A member has some six letters to write in a merge, more when conveners change.
MAX_FROM_ONE = 32
# Senders there may be: a roster's worth and as many that were left out.
MAX_SENDERS = 2 * MAX_MEMBERS
FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 0.5
# A letter is some kilobytes.
LETTER_PATIENCE_S = 1.0
# For a member that has not all it needs when we have: it gets our last letters for so long.
LINGER_S = 3.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One that came.

    Attributes:
        sender: who brought it; not always who signed it.
        what: what it says it is.
        data: its bytes; nothing in it has been verified.
    """

    sender: PeerId
    what: What
    data: bytes


@dataclass(slots=True)
class Letters:
    """The letters of one merge.

    Attributes:
        means: how members are called.
        stage, epoch: of the merge.
        nursery: in which letters are brought.
        merged: members that say they are through with it.
    """

    means: Means
    stage: int
    epoch: int
    nursery: trio.Nursery
    merged: set[PeerId] = field(default_factory=set)
    _ends_s: float = inf
    _unread: list[Letter] = field(default_factory=list)
    _known: set[bytes] = field(default_factory=set)
    _from: Counter[PeerId] = field(default_factory=Counter)
    _arrived: trio.Event = field(default_factory=trio.Event)
    _outboxes: dict[PeerId, deque[Note]] = field(default_factory=dict)

    def take(self, sender: PeerId, what: What, data: bytes) -> None:
        """Keep a letter until it is read; raises RefusedError if it is one too many."""
        name = digest(data)
        if name in self._known:
            return
        new = sender not in self._from
        if self._from[sender] >= MAX_FROM_ONE or (new and len(self._from) >= MAX_SENDERS):
            raise RefusedError("too-many", f"expected at most {MAX_FROM_ONE} letters of {sender}, got more")
        self._from[sender] += 1
        self._known.add(name)
        self._unread.append(Letter(sender, what, data))
        self._wake()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()

    def read(self, *kinds: What) -> Sequence[Letter]:
        """Return the unread letters of some kinds; others stay."""
        found = [letter for letter in self._unread if letter.what in kinds]
        self._unread = [letter for letter in self._unread if letter.what not in kinds]
        return found

    async def more(self, until_s: float) -> bool:
        """Wait for another letter until a time; return whether one came."""
        with trio.move_on_at(until_s) as scope:
            await self._arrived.wait()
        return not scope.cancelled_caught

    def send(self, what: What, data: bytes, members: Iterable[PeerId]) -> None:
        """Bring a letter to members, ourselves left out, in the background; each gets ours in the order of sending."""
        for member in members:
            if member == self.means.identity.peer_id:
                continue
            if member not in self._outboxes:
                self._outboxes[member] = deque()
            outbox = self._outboxes[member]
            outbox.append(Note(epoch=self.epoch, stage=self.stage, what=what, data=data))
            if len(outbox) == 1:
                self.nursery.start_soon(self._empty, outbox, member)

    def end(self) -> None:
        """Let the last letters arrive, for a moment, and no more after it."""
        self._ends_s = trio.current_time() + LINGER_S

    async def _empty(self, outbox: deque[Note], member: PeerId) -> None:
        while outbox:
            await self._bring(outbox[0], member)
            outbox.popleft()

    async def _bring(self, note: Note, member: PeerId) -> None:
        request = Request(note.to_fields())
        pause_s = FIRST_PAUSE_S
        while trio.current_time() < self._ends_s:
            try:
                with trio.fail_after(LETTER_PATIENCE_S):
                    await self.means.streams.call(member, MERGE, request)
            except RefusedError as error:
                if error.reason == "merged":
                    self.merged.add(member)
                    self._wake()
                if error.reason != "not-yet":
                    return
            except RemoteProtocolError:  # it has been charged
                return
            except (PeerUnavailableError, trio.TooSlowError):
                pass  # it may be back before the merge is over
            else:
                return
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
