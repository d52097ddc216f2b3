"""Conversations with the daemon: one connection to its control socket for each request."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from iota_p2p.network import control
from iota_p2p.network.control import PeerInfo
from iota_p2p.network.daemon_stream import ChunkedStream
from iota_p2p.network.delimited import MessageSplitter
from iota_p2p_crypto.errors import LocalProtocolError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId

# Requests that wait for other peers, at most at once: each costs the daemon a dial or a DHT walk of dozens of
# messages. Requests that the daemon answers itself are not held up by them.
MAX_REMOTE_REQUESTS = 128
# Likewise for those, far below the backlog of the control socket (4,096).
MAX_LOCAL_REQUESTS = 64
# The daemon gives up a dial (TCP and handshake) or a DHT walk then; without it, after a minute.
DIAL_TIMEOUT_S = 15
DHT_TIMEOUT_S = 30
_RECEIVE_BYTES = 64 * 2**10


class ControlReader:
    """Reads whole messages from a connection of the control protocol."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._splitter = MessageSplitter()

    async def next_body(self) -> bytes:
        """Return the next message's body; raises PeerUnavailableError if the daemon goes away before its end."""
        while (body := self._splitter.next_body()) is None:
            try:
                data = await self._stream.receive_some(_RECEIVE_BYTES)
            except trio.BrokenResourceError as error:
                raise PeerUnavailableError("expected an answer of the daemon, got a broken connection") from error
            if not data:
                raise PeerUnavailableError("expected an answer of the daemon, got the end of the connection")
            self._splitter.feed(data)
        return body

    def into_stream(self) -> ChunkedStream:
        """Return what the connection carries from here on: a stream."""
        return ChunkedStream(self._stream, self._splitter.take_rest())


class ControlClient:
    """Asks the daemon behind one control socket. All methods raise PeerUnavailableError while it is down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._remote = trio.Semaphore(MAX_REMOTE_REQUESTS)
        self._local = trio.Semaphore(MAX_LOCAL_REQUESTS)

    async def _say(self, request: bytes) -> trio.SocketStream:
        try:
            stream = await trio.open_unix_socket(str(self._path))
        except OSError as error:
            raise PeerUnavailableError(f"expected the daemon to be up, got {error}") from error
        try:
            await stream.send_all(request)
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError):
                raise PeerUnavailableError("expected the daemon to listen, got a broken connection") from error
            raise
        return stream

    @asynccontextmanager
    async def converse(self, request: bytes) -> AsyncGenerator[ControlReader, None]:
        """Send a request on a connection of its own and read the replies for as long as the context lasts."""
        stream = await self._say(request)
        try:
            yield ControlReader(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async def _ask(self, request: bytes) -> bytes:
        async with self._local, self.converse(request) as replies:
            return await replies.next_body()

    async def _ask_remote(self, request: bytes) -> bytes:
        async with self._remote, self.converse(request) as replies:
            return await replies.next_body()

    async def identify(self) -> PeerInfo:
        """Return the daemon's peer id and transport addresses."""
        return control.read_identify_reply(await self._ask(control.identify_request()))

    async def ping(self) -> None:
        """Return when the daemon has answered; takes no other request's turn, as those of a hung daemon never end."""
        async with self.converse(control.identify_request()) as replies:
            await replies.next_body()

    async def hold(self) -> trio.SocketStream:
        """Open the connection that keeps the daemon alive."""
        stream = await self._say(control.hold_request())
        try:
            control.check_reply(await ControlReader(stream).next_body(), LocalProtocolError)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def connect(self, peer: PeerInfo) -> None:
        """Connect to a peer."""
        control.check_reply(await self._ask_remote(control.connect_request(peer, DIAL_TIMEOUT_S)))

    async def disconnect(self, peer_id: PeerId) -> None:
        """Close all connections to a peer."""
        control.check_reply(await self._ask(control.disconnect_request(peer_id)), LocalProtocolError)

    async def connections(self) -> Sequence[PeerInfo]:
        """Return the open connections, each with one address."""
        return control.read_peers_reply(await self._ask(control.list_peers_request()))

    async def open_stream(self, peer_id: PeerId, protocol: str) -> ChunkedStream:
        """Open a stream to a peer."""
        async with self._remote:
            stream = await self._say(control.open_stream_request(peer_id, protocol, DIAL_TIMEOUT_S))
            try:
                reader = ControlReader(stream)
                control.check_reply(await reader.next_body())
                return reader.into_stream()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise

    async def handle(self, protocol: str, listener: Path) -> None:
        """Have inbound streams of a protocol delivered to a unix socket."""
        control.check_reply(await self._ask(control.handle_request(protocol, str(listener))), LocalProtocolError)

    async def publish(self, topic: str, data: bytes) -> None:
        """Publish to a topic."""
        control.check_reply(await self._ask(control.publish_request(topic, data)), LocalProtocolError)

    async def provide(self, key: bytes) -> None:
        """Announce in the DHT that we provide a key."""
        control.check_reply(await self._ask_remote(control.provide_request(key, DHT_TIMEOUT_S)))

    async def find_providers(self, key: bytes, limit: int) -> Sequence[PeerId]:
        """Return up to `limit` peers that provide a key."""
        found: dict[PeerId, None] = {}
        async with self._remote, self.converse(control.find_providers_request(key, limit, DHT_TIMEOUT_S)) as replies:
            control.check_reply(await replies.next_body())
            ended = False
            while not ended and len(found) < limit:
                provider, ended = control.read_provider(await replies.next_body())
                if provider is not None:
                    found[provider] = None
        return tuple(found)
