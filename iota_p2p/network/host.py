"""`Host`: what a peer needs from a libp2p node, and nothing more.

Two implementations exist: `daemon.DaemonHost` (a real go-libp2p daemon) and `memory.MemoryHost` (the simulated
twin on trio's virtual clock). Everything above (`rendezvous`, `gossip`, `streams`, the whole peer) is written
against this interface only, and runs unchanged on either.

Rules both implementations keep:
- The remote peer id of a stream and the author of a gossip message come from the authenticated transport.
- Every method that needs the other side raises `PeerUnavailableError` when it cannot be reached, or when the
  host itself is down for a moment (the daemon is being restarted); callers decide on timeouts with trio scopes.
- Cancelling any method is safe: it may or may not have taken effect, and nothing leaks.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import trio

from iota_p2p_crypto.identity import PeerId


@dataclass(frozen=True, slots=True)
class HostStream:
    """A bidirectional byte stream to an authenticated peer.

    Attributes:
        peer_id: who is at the other end, proved by the transport's handshake.
        protocol: the negotiated protocol id, such as `/iota-p2p/hello/1`.
        stream: the bytes. `send_eof` half-closes; `aclose` resets.
    """

    peer_id: PeerId
    protocol: str
    stream: trio.abc.HalfCloseableStream


@dataclass(frozen=True, slots=True)
class GossipMessage:
    """One message as it came from a topic.

    Attributes:
        author: the peer that published it, authenticated by the transport's own signature.
        data: the bytes it published.
    """

    author: PeerId
    data: bytes


@dataclass(frozen=True, slots=True)
class Connection:
    """A live connection of this host.

    Attributes:
        peer_id: the other end.
        address: its multiaddress, without the trailing `/p2p/...`; a relayed one contains `/p2p-circuit`.
    """

    peer_id: PeerId
    address: str

    @property
    def relayed(self) -> bool:
        """True if a relay stands between the two peers."""
        return "/p2p-circuit" in self.address


StreamHandler = Callable[[HostStream], Awaitable[None]]


class Host(Protocol):
    """A libp2p node owned by this process."""

    @property
    def peer_id(self) -> PeerId:
        """Our own peer id, which is our signing identity."""
        ...

    async def settled(self) -> int:
        """Wait until our own node is up and whole; return how often it has been started.

        A question to somebody else that failed says nothing of them if this differs before and after it.
        """
        ...

    async def addresses(self) -> Sequence[str]:
        """Return the full multiaddresses (ending in `/p2p/<peer id>`) at which others may reach us."""
        ...

    async def connect(self, address: str) -> PeerId:
        """Connect to a full multiaddress ending in `/p2p/<peer id>`; return that peer id."""
        ...

    async def disconnect(self, peer_id: PeerId) -> None:
        """Close every connection to a peer; no error if there is none."""
        ...

    async def connections(self) -> Sequence[Connection]:
        """Return the connections that are open now."""
        ...

    async def open_stream(self, peer_id: PeerId, protocol: str) -> HostStream:
        """Open a stream to a peer, found by the routing table if we are not connected."""
        ...

    async def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol for as long as the host lives; one task per inbound stream, bounded in number.

        The stream is closed when the handler returns. A handler that raises anything but a
        `RemoteProtocolError`, `PeerUnavailableError` or trio's broken/closed resource errors crashes the host's
        nursery: those are our bugs. The host resets the stream in every case.
        """
        ...

    async def publish(self, topic: str, data: bytes) -> None:
        """Publish to a gossip topic; the host's own subscription does not echo it."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[GossipMessage]]:
        """Subscribe to a topic until the context ends; survives a restart of the daemon.

        The queue between host and subscriber is bounded; when it is full, the oldest message is dropped.
        """
        ...

    async def provide(self, key: bytes) -> None:
        """Announce in the DHT that we provide the 32-byte `key`."""
        ...

    async def find_providers(self, key: bytes, limit: int) -> Sequence[PeerId]:
        """Return up to `limit` peers that provide `key`, ourselves included if we do."""
        ...
