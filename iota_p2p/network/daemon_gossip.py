"""Topics: one subscription at the daemon, shared by all subscribers in this process."""

from collections import deque
from collections.abc import AsyncIterator

import trio

from iota_p2p.network import control
from iota_p2p.network.control_client import ControlClient
from iota_p2p.network.host import GossipMessage
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId

# What may wait for one subscriber: some seconds of a busy topic of small messages, but never more than 16 of
# the largest that gossip carries (1 MB).
MAILBOX_MESSAGES = 1024
MAILBOX_BYTES = 16 * 2**20
_RESUBSCRIBE_S = 0.05  # between tries while the daemon is being restarted


class Mailbox(AsyncIterator[GossipMessage]):
    """What waits for one subscriber; when it is full, the oldest messages are dropped."""

    def __init__(self) -> None:
        self._messages: deque[GossipMessage] = deque()
        self._num_bytes = 0
        self._news = trio.lowlevel.ParkingLot()

    def put(self, message: GossipMessage) -> None:
        """Add a message, dropping the oldest ones that no longer fit."""
        self._messages.append(message)
        self._num_bytes += len(message.data)
        while len(self._messages) > MAILBOX_MESSAGES or self._num_bytes > MAILBOX_BYTES:
            self._take()
        self._news.unpark()

    def _take(self) -> GossipMessage:
        message = self._messages.popleft()
        self._num_bytes -= len(message.data)
        return message

    async def __anext__(self) -> GossipMessage:
        """Wait for the next message; cancelling loses none."""
        await trio.lowlevel.checkpoint()
        while not self._messages:
            await self._news.park()
        return self._take()


class TopicFeed:
    """Passes a topic's messages on to mailboxes, and subscribes anew whenever the daemon was restarted."""

    def __init__(self, client: ControlClient, topic: str, own_peer_id: PeerId) -> None:
        self._client = client
        self._topic = topic
        self._own_peer_id = own_peer_id
        self.mailboxes: set[Mailbox] = set()
        self.scope = trio.CancelScope()
        self.ready = trio.Event()

    async def run(self) -> None:
        """Run until `scope` is cancelled; `ready` is set once the daemon has agreed, or turns out to be down."""
        with self.scope:
            while True:
                try:
                    async with self._client.converse(control.subscribe_request(self._topic)) as replies:
                        control.check_reply(await replies.next_body(), LocalProtocolError)
                        self.ready.set()
                        while True:
                            self._deliver(await replies.next_body())
                except PeerUnavailableError:
                    self.ready.set()
                    await trio.sleep(_RESUBSCRIBE_S)

    def _deliver(self, body: bytes) -> None:
        try:
            author, data = control.read_gossip(body)
        except MalformedError:
            return  # an author whose key is not Ed25519 is not of our kind
        if author != self._own_peer_id:
            message = GossipMessage(author, data)
            for mailbox in self.mailboxes:
                mailbox.put(message)
