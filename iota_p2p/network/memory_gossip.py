"""Simulated GossipSub: who gets a message, and when, worked out at once instead of relayed by tasks.

The mesh is drawn anew for every message: each holder passes it to a few more, until all subscribers that can be
reached have it. That keeps what matters to the code above (delay grows with the logarithm of the swarm, a
partition is crossed if anybody can cross it, a lost message stays lost) at some microseconds per delivery.
The messages are small, so they take no bandwidth.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from hashlib import sha256
from random import Random

import trio

from iota_p2p.network.host import GossipMessage
from iota_p2p.network.link import Links
from iota_p2p.network.memory_events import EventQueue
from iota_p2p_crypto.identity import PeerId

# To how many peers a holder passes a message: GossipSub's default mesh degree is 6.
MESH_DEGREE = 6
# Messages waiting for one subscriber; some seconds of a busy topic at no more than 1 MB each.
MAILBOX_MESSAGES = 1024


def plan_deliveries(
    links: Links, author: PeerId, subscribers: Sequence[PeerId], rng: Random
) -> list[tuple[float, PeerId]]:
    """Return (delay in seconds, peer) for every subscriber that will get a message of `author`.

    `subscribers` must be in an order of its own (sorted), so that the draw depends on `rng` alone.
    """
    pending = [peer_id for peer_id in subscribers if peer_id != author]
    rng.shuffle(pending)
    plan: list[tuple[float, PeerId]] = []
    holders = [(0.0, author)]
    newest = holders
    names = [author]  # of the holders
    tried: dict[PeerId, int] = {}  # so many of the first holders cannot reach this peer
    while pending and newest:
        passed: list[tuple[float, PeerId]] = []
        missed: list[PeerId] = []
        for peer_id in pending:
            holder = newest[int(rng.random() * len(newest))]
            if len(passed) >= MESH_DEGREE * len(newest):
                missed.append(peer_id)
                continue
            if links.blocked and holder[1] in (cut_off := links.cut_off_from(peer_id)):
                untried = names[tried.get(peer_id, 0) :]
                if cut_off.issuperset(untried):
                    tried[peer_id] = len(names)
                    missed.append(peer_id)
                    continue
                holder = holders[next(way for way, name in enumerate(names) if name not in cut_off)]
            model = links.model(holder[1], peer_id)
            delay_s = holder[0] + model.latency_s + model.jitter_s * rng.random()
            if not model.loss or rng.random() >= model.loss:
                passed.append((delay_s, peer_id))
        plan += passed
        if links.blocked:
            holders = holders + passed
            names += [peer_id for _, peer_id in passed]
        pending, newest = missed, passed
    return plan


class Mailbox(AsyncIterator[GossipMessage]):
    """What waits for one subscriber; when it is full, the oldest message is dropped."""

    def __init__(self) -> None:
        self._messages: deque[GossipMessage] = deque(maxlen=MAILBOX_MESSAGES)
        self._reader: trio.lowlevel.Task | None = None  # while it waits

    def put(self, message: GossipMessage) -> None:
        """Add a message."""
        self._messages.append(message)
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    async def __anext__(self) -> GossipMessage:
        """Wait for the next message, one task at a time; cancelling loses none."""
        if self._messages:
            await trio.lowlevel.checkpoint()
        elif self._reader is not None:
            raise trio.BusyResourceError("expected one task to read a mailbox, got another one")
        else:
            # Without a parking lot, which costs half as much again: a swarm wakes its readers a million times.
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        return self._messages.popleft()

    def _stop_waiting(self, _: Callable[[], object]) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED


class Mesh:
    """All topics: who subscribes, and what is on its way to whom."""

    def __init__(self, seed: int, events: EventQueue, links: Links, hears: Callable[[PeerId], bool]) -> None:
        self._seed = seed
        self._events = events
        self._links = links
        self._hears = hears
        self._mailboxes: dict[str, dict[PeerId, list[Mailbox]]] = {}

    def join(self, topic: str, peer_id: PeerId) -> Mailbox:
        """Subscribe a peer."""
        mailbox = Mailbox()
        self._mailboxes.setdefault(topic, {}).setdefault(peer_id, []).append(mailbox)
        return mailbox

    def leave(self, topic: str, peer_id: PeerId, mailbox: Mailbox) -> None:
        """End a subscription."""
        mailboxes = self._mailboxes[topic][peer_id]
        mailboxes.remove(mailbox)
        if not mailboxes:
            del self._mailboxes[topic][peer_id]

    def spread(self, topic: str, message: GossipMessage) -> None:
        """Plan the deliveries of a message to all subscribers that can be reached."""
        digest = sha256(message.data).hexdigest()
        self._events.note("publish", message.author, topic, digest)
        subscribers = sorted(peer_id for peer_id in self._mailboxes.get(topic, {}) if self._hears(peer_id))
        now_s = self._events.now_s()
        rng = Random(f"{self._seed} {message.author} {topic} {digest} {now_s}")  # noqa: S311 - a simulation
        together: dict[float, list[PeerId]] = {}
        for delay_s, peer_id in plan_deliveries(self._links, message.author, subscribers, rng):
            together.setdefault(self._events.due_s(delay_s, now_s), []).append(peer_id)
        for due_s, peer_ids in together.items():
            deliver = partial(self._deliver, topic, message, peer_ids)
            self._events.submit_at(due_s, (topic, message.author, digest), deliver, peer_ids)

    def _deliver(self, topic: str, message: GossipMessage, peer_ids: Sequence[PeerId]) -> None:
        for peer_id in filter(self._hears, peer_ids):
            self._events.note("deliver", message.author, peer_id, topic)
            for mailbox in self._mailboxes[topic].get(peer_id, ()):
                mailbox.put(message)
