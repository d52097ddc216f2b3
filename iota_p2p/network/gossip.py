"""Typed gossip over a host: what comes out of a subscription has passed its topic's rules."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio

from iota_p2p.network.host import GossipMessage, Host
from iota_p2p.network.offences import OffenceLedger
from iota_p2p.network.traffic import Traffic
from iota_p2p_crypto.errors import LocalProtocolError, OversizedError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import IgnoreError, RejectError
from iota_p2p_protocols.gossip import RateLimit, Seen
from iota_p2p_protocols.ids import TopicSpec

T = TypeVar("T")
Validate = Callable[[bytes, PeerId], T]


class Gossip:
    """The topics of one run.

    Attributes:
        ledger: what authors did wrong; an author that did too much is not listened to for a while.
    """

    def __init__(
        self, host: Host, run_id: bytes, ledger: OffenceLedger | None = None, traffic: Traffic | None = None
    ) -> None:
        self._host = host
        self._traffic = traffic or Traffic()
        self._run_id = run_id
        self.ledger = ledger or OffenceLedger()

    async def publish(self, topic: TopicSpec, data: bytes) -> None:
        """Publish to everybody who subscribes; raises PeerUnavailableError while the host is down."""
        if len(data) > topic.max_bytes:
            raise LocalProtocolError(f"expected at most {topic.max_bytes} bytes for {topic.name}, got {len(data)}")
        self._traffic.gossip_bytes += len(data)
        await self._host.publish(topic.full_name(self._run_id), data)

    @asynccontextmanager
    async def subscribe(self, topic: TopicSpec, validate: Validate[T]) -> AsyncIterator[AsyncIterator[T]]:
        """Subscribe for as long as the context lasts; yields an iterator of what `validate` returned.

        `validate` raises IgnoreError to drop a message in silence, and any RemoteProtocolError to drop it and
        charge its author.
        """
        async with self._host.subscribe(topic.full_name(self._run_id)) as messages:
            yield _Accepted(topic, messages, validate, self.ledger)


class _Accepted(AsyncIterator[T], Generic[T]):
    """The values of the messages that pass; cancelling `__anext__` loses at most the message under way."""

    def __init__(
        self, topic: TopicSpec, messages: AsyncIterator[GossipMessage], validate: Validate[T], ledger: OffenceLedger
    ) -> None:
        self._topic = topic
        self._messages = messages
        self._validate = validate
        self._ledger = ledger
        self._seen = Seen()
        self._rate = RateLimit(topic.messages_per_minute, topic.burst)

    async def __anext__(self) -> T:
        async for message in self._messages:
            try:
                return self._check(message)
            except IgnoreError:
                continue
            except RemoteProtocolError as error:
                self._ledger.charge(message.author, error.rule, str(error))
        raise StopAsyncIteration

    def _check(self, message: GossipMessage) -> T:
        """Return the value of a message; the checks go from cheap to dear."""
        author, data = message.author, message.data
        # [IGNORE] the author has lately broken too many rules
        if self._ledger.refuses(author):
            raise IgnoreError("gossip-refused", f"expected an author in good standing, got {author}")
        # [REJECT] the message is no larger than its topic allows
        if len(data) > self._topic.max_bytes:
            raise OversizedError("gossip-size", f"expected at most {self._topic.max_bytes} bytes, got {len(data)}")
        # [IGNORE] the message has not come before
        if not self._seen.add(author, data):
            raise IgnoreError("gossip-seen", "expected a new message, got one seen before")
        # [REJECT] the author publishes no more than its topic allows
        if not self._rate.allow(author, trio.current_time()):
            rate = f"{self._topic.messages_per_minute} messages per minute"
            raise RejectError("gossip-rate", f"expected at most {rate} on {self._topic.name}, got more")
        return self._validate(data, author)
