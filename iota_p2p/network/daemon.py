"""`DaemonHost`: the `Host` of the real network, a supervised go-libp2p daemon.

The daemon is a child process that may die at any time. Then everything that runs through it breaks with an error,
and the supervisor starts it again with the same identity and port, registers the handlers anew and dials the
peers that were connected; subscriptions renew themselves (`daemon_gossip`).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from iota_p2p.network.control import PeerInfo
from iota_p2p.network.daemon_binary import find_daemon
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.daemon_gossip import Mailbox, TopicFeed
from iota_p2p.network.daemon_inbound import InboundStreams
from iota_p2p.network.daemon_neighbours import Neighbours
from iota_p2p.network.daemon_runs import DaemonRuns
from iota_p2p.network.host import Connection, GossipMessage, HostStream, StreamHandler
from iota_p2p.network.multiaddr import PeerAddress
from iota_p2p.network.private_folder import private_folder
from iota_p2p_crypto.errors import LocalProtocolError, PeerUnavailableError
from iota_p2p_crypto.identity import Identity, PeerId

# GossipSub drops messages over 1 MiB without a word; this leaves room for its envelope.
MAX_GOSSIP_BYTES = 1_000_000
# How long opening the host waits for the bootstrap peers before it goes on without them.
_BOOTSTRAP_S = 5.0


@asynccontextmanager
async def open_daemon_host(
    identity: Identity, config: DaemonConfig | None = None
) -> AsyncGenerator["DaemonHost", None]:
    """Run a libp2p daemon under our identity for as long as the context lasts.

    Must be entered in the main thread (see `daemon_process`). Waits a few seconds at most for the bootstrap
    peers; those that are away are dialled again and again.

    Raises:
        UserError: if there is no daemon for this machine, a listen port is taken, or (inside the context, in an
            exception group) the daemon dies again and again.
    """
    config = config or DaemonConfig()
    binary = find_daemon(config.binary)
    with private_folder() as folder:
        inbound = InboundStreams(folder / "in")
        async with await inbound.listen() as listener:
            runs = DaemonRuns(identity, config, binary, folder)
            async with runs.open(), trio.open_nursery() as nursery:
                host = DaemonHost(runs, inbound, nursery)
                nursery.start_soon(inbound.serve, listener)
                nursery.start_soon(runs.supervise, host._restore)  # noqa: SLF001 - the host's own module
                nursery.start_soon(runs.kill_when_hung)
                await host._join()  # noqa: SLF001
                yield host
                nursery.cancel_scope.cancel()


class DaemonHost:
    """A libp2p node owned by this process; see `Host` for what the methods promise."""

    def __init__(self, runs: DaemonRuns, inbound: InboundStreams, nursery: trio.Nursery) -> None:
        """Use `open_daemon_host` instead."""
        self._runs = runs
        self._inbound = inbound
        self._nursery = nursery
        self._client = runs.client
        self._registered: set[str] = set()
        self._feeds: dict[str, TopicFeed] = {}
        targets = [PeerAddress.parse(address) for address in runs.config.bootstrap]
        bootstrap = [
            PeerInfo(target.peer_id, (target.transport,))
            for target in targets
            if target.peer_id != self.peer_id  # all peers of a run can have the same configuration
        ]
        self._neighbours = Neighbours(runs, bootstrap)
        inbound.on_stream = self._neighbours.note

    @property
    def peer_id(self) -> PeerId:
        """Our own peer id, which is our signing identity."""
        return self._runs.identity.peer_id

    @property
    def daemon_pid(self) -> int | None:
        """The daemon's process id, which changes when it is restarted; None in between."""
        return self._runs.pid

    async def settled(self) -> int:
        """Wait until the daemon answers and has again what the one before it had; return how many there were."""
        return await self._neighbours.settled()

    async def addresses(self) -> Sequence[str]:
        """Return the full multiaddresses at which others may reach us."""
        own = await self._client.identify()
        return tuple(str(PeerAddress(own.peer_id, transport)) for transport in own.addresses)

    async def connect(self, address: str) -> PeerId:
        """Connect to a full multiaddress; raises MalformedError if it is none."""
        target = PeerAddress.parse(address)
        await self._neighbours.connect(PeerInfo(target.peer_id, (target.transport,)))
        return target.peer_id

    async def disconnect(self, peer_id: PeerId) -> None:
        """Close every connection to a peer; no error if there is none."""
        self._neighbours.forget(peer_id)
        await self._client.disconnect(peer_id)

    async def connections(self) -> Sequence[Connection]:
        """Return the connections that are open now."""
        peers = await self._client.connections()
        return tuple(Connection(peer.peer_id, address) for peer in peers for address in peer.addresses)

    async def open_stream(self, peer_id: PeerId, protocol: str) -> HostStream:
        """Open a stream to a peer, found by the routing table if we are not connected."""
        if peer_id == self.peer_id:
            raise LocalProtocolError("expected a stream to another peer, got one to ourselves")
        stream = await self._client.open_stream(peer_id, protocol)
        self._neighbours.note(peer_id)
        return HostStream(peer_id, protocol, stream)

    async def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol for as long as the host lives."""
        if protocol in self._inbound.handlers:
            raise LocalProtocolError(f"expected one handler for {protocol}, got another one")
        self._inbound.handlers[protocol] = handler
        async with self._runs.changing:  # a daemon refuses to be told twice
            if protocol not in self._registered:
                with suppress(PeerUnavailableError):  # its next run will be told by `_restore`
                    await self._register(protocol)

    async def _register(self, protocol: str) -> None:
        await self._client.handle(protocol, self._inbound.path)
        self._registered.add(protocol)

    async def publish(self, topic: str, data: bytes) -> None:
        """Publish to a gossip topic at most MAX_GOSSIP_BYTES."""
        if len(data) > MAX_GOSSIP_BYTES:
            raise LocalProtocolError(f"expected at most {MAX_GOSSIP_BYTES} bytes of gossip, got {len(data)}")
        await self._client.publish(topic, data)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncGenerator[AsyncIterator[GossipMessage], None]:
        """Subscribe to a topic until the context ends; all subscribers share one feed from the daemon."""
        mailbox = Mailbox()
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = TopicFeed(self._client, topic, self.peer_id)
            self._nursery.start_soon(feed.run)
        feed.mailboxes.add(mailbox)
        try:
            await feed.ready.wait()
            yield mailbox
        finally:
            feed.mailboxes.discard(mailbox)
            if not feed.mailboxes:
                self._feeds.pop(topic)
                feed.scope.cancel()

    async def provide(self, key: bytes) -> None:
        """Announce in the DHT that we provide the 32-byte `key`."""
        await self._client.provide(key)

    async def find_providers(self, key: bytes, limit: int) -> Sequence[PeerId]:
        """Return up to `limit` peers that provide `key`, ourselves included if we do."""
        return await self._client.find_providers(key, limit)

    async def _restore(self) -> None:
        """Make a restarted daemon what the last one was."""
        self._registered.clear()
        for protocol in tuple(self._inbound.handlers):
            await self._register(protocol)
        self._neighbours.begin_redial(self._nursery)

    async def _join(self) -> None:
        """Give the bootstrap peers a moment to answer, then look after the connections."""
        with trio.move_on_after(_BOOTSTRAP_S):
            await self._neighbours.dial_bootstrap()
        self._nursery.start_soon(self._neighbours.run)
