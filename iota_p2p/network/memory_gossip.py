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
    tried: dict[PeerId, int] = {}  # so many of the first holders cannot reach this peer
    while pending and newest:
        passed: list[tuple[float, PeerId]] = []
        missed: list[PeerId] = []
        for peer_id in pending:
            holder = newest[int(rng.random() * len(newest))]
            if len(passed) >= MESH_DEGREE * len(newest):
                missed.append(peer_id)
                continue
            if links.blocked and (holder[1], peer_id) in links.blocked:
                way = tried.get(peer_id, 0)
                while way < len(holders) and (holders[way][1], peer_id) in links.blocked:
                    way += 1
                tried[peer_id] = way
                if way == len(holders):
                    missed.append(peer_id)
                    continue
                holder = holders[way]
            model = links.model(holder[1], peer_id)
            delay_s = holder[0] + model.latency_s + model.jitter_s * rng.random()
            if not model.loss or rng.random() >= model.loss:
                passed.append((delay_s, peer_id))
        plan += passed
        holders = holders + passed if links.blocked else holders
        pending, newest = missed, passed
    return plan


class Mailbox(AsyncIterator[GossipMessage]):
    """What waits for one subscriber; when it is full, the oldest message is dropped."""

    def __init__(self) -> None:
        self._messages: deque[GossipMessage] = deque(maxlen=MAILBOX_MESSAGES)
        self._news = trio.lowlevel.ParkingLot()

    def put(self, message: GossipMessage) -> None:
        """Add a message."""
        self._messages.append(message)
        self._news.unpark()

    async def __anext__(self) -> GossipMessage:
        """Wait for the next message; cancelling loses none."""
        if self._messages:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            await self._news.park()
        return self._messages.popleft()


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
