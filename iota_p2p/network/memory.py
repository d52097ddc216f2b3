"""The simulated twin of the daemon: hosts in one process, over a link model, on trio's virtual clock.

Deterministic: two networks of one seed whose tasks do the same things produce the same trace (see
`memory_events`). What it models and what it leaves out:

- connections: on demand, to any host that has joined (was ever connected to another); a partition breaks them
  after a while, a crash at once; unlike go-libp2p, idle ones are kept for ever;
- streams: see `memory_stream`; gossip: see `memory_gossip`; DHT: see `memory_dht`;
- security: the peer ids are simply true.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import TypeVar

import trio

from iota_p2p.network.host import Connection, GossipMessage, HostStream, StreamHandler
from iota_p2p.network.link import LinkModel, Links
from iota_p2p.network.memory_dht import ProviderRecords
from iota_p2p.network.memory_events import EventQueue, Request, TraceEvent
from iota_p2p.network.memory_gossip import Mesh
from iota_p2p.network.memory_stream import MemoryStream
from iota_p2p.network.memory_wires import Wires
from iota_p2p_crypto.errors import LocalProtocolError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId

_ADDRESS = "/memory/0"
# Inbound streams one host serves at a time; go-libp2p's resource manager allows about as many.
MAX_INBOUND_STREAMS = 1024
# Round trips to connect: TCP, security, muxer. To open a stream: agreeing on the protocol.
_CONNECT_ROUND_TRIPS = 3
_OPEN_ROUND_TRIPS = 1
# A DHT lookup asks hosts one after the other, a logarithmic number; three does for some thousand.
_LOOKUP_ROUND_TRIPS = 3

T = TypeVar("T")


@asynccontextmanager
async def open_memory_network(
    seed: int, link: LinkModel | None = None, trace: Callable[[TraceEvent], None] | None = None
) -> AsyncIterator["MemoryNetwork"]:
    """Run a simulated network; leaving the context cancels every handler still running."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(seed, link or LinkModel(), nursery, trace)
        nursery.start_soon(network.events.run)
        yield network
        nursery.cancel_scope.cancel()


class MemoryNetwork:
    """All hosts and what lies between them; open one with `open_memory_network`.

    Faults can be set at any time and act in the instant they are called: `block`, `heal`, `crash`.
    """

    def __init__(
        self, seed: int, link: LinkModel, nursery: trio.Nursery, trace: Callable[[TraceEvent], None] | None
    ) -> None:
        self.links = Links(seed, link)
        self.events = EventQueue(link.tick_s, trace)
        self.wires = Wires(self.events, self.links)
        self.records = ProviderRecords()
        self.nursery = nursery
        self.mesh = Mesh(seed, self.events, self.links, self._hears)
        self._hosts: dict[PeerId, MemoryHost] = {}

    def host(self, peer_id: PeerId) -> "MemoryHost":
        """Start a host; the id of one that is down can be used again, as when a peer restarts."""
        if self.find(peer_id) is not None:
            raise LocalProtocolError(f"expected the id of a host that is down, got {peer_id}")
        self._hosts[peer_id] = MemoryHost(self, peer_id)
        return self._hosts[peer_id]

    def find(self, peer_id: PeerId) -> "MemoryHost | None":
        """Return the host of a peer, if it is up."""
        host = self._hosts.get(peer_id)
        return host if host is not None and host.up else None

    def _hears(self, peer_id: PeerId) -> bool:
        host = self.find(peer_id)
        return host is not None and host.joined

    def in_reach(self, peer_id: PeerId) -> list[PeerId]:
        """Return the hosts, itself included, that form the DHT as one host sees it now."""
        return [
            other.peer_id
            for other in self._hosts.values()
            if other.up and other.joined and self.links.reachable(peer_id, other.peer_id)
        ]

    def block(self, sources: Iterable[PeerId], targets: Iterable[PeerId]) -> None:
        """Let nothing pass from `sources` to `targets`; call it both ways for a full partition."""
        self.wires.block(sources, targets)

    def heal(self) -> None:
        """End every partition."""
        self.wires.heal()

    def crash(self, peer_id: PeerId) -> None:
        """Kill a host: streams break, its handlers are cancelled, nobody reaches it.

        `MemoryHost.restart` brings it back with its handlers and subscriptions, as the daemon's supervisor does.
        """
        self._hosts[peer_id].go_down()
        self.events.submit(0, ("", "crash", peer_id), partial(self.wires.disconnect_all, peer_id))


class MemoryHost:
    """A simulated libp2p node; see `host.Host` for what its methods promise."""

    def __init__(self, network: MemoryNetwork, peer_id: PeerId) -> None:
        self.up = True
        self.num_runs = 1
        self.joined = False
        self.handlers: dict[str, StreamHandler] = {}
        self._network = network
        self._peer_id = peer_id
        self._serving: set[trio.CancelScope] = set()
        self._restarted = trio.Event()

    @property
    def peer_id(self) -> PeerId:
        """Our own peer id."""
        return self._peer_id

    def go_down(self) -> None:
        """Stop answering and cancel the handlers; the network deals with the connections."""
        self.up = False
        for scope in self._serving:
            scope.cancel()

    def restart(self) -> None:
        """Come back up after `MemoryNetwork.crash`."""
        self.up = True
        self.num_runs += 1
        self._restarted.set()
        self._restarted = trio.Event()

    async def aclose(self) -> None:
        """Leave: what was sent still arrives, then streams and connections close."""
        if self.up:
            self.go_down()
            self._network.wires.leave(self._peer_id)
        await trio.lowlevel.checkpoint()

    async def _check_up(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_up_now()

    def _check_up_now(self) -> None:
        if not self.up:
            raise PeerUnavailableError(f"expected our own host {self._peer_id} to be up, got one that is down")

    async def settled(self) -> int:
        """Wait until we are up; return how often we have come up."""
        await trio.lowlevel.checkpoint()
        while not self.up:
            await self._restarted.wait()
        return self.num_runs

    async def addresses(self) -> Sequence[str]:
        """Return our one address."""
        await self._check_up()
        return [f"{_ADDRESS}/p2p/{self._peer_id}"]

    async def connect(self, address: str) -> PeerId:
        """Connect to an address of another simulated host."""
        peer_id = PeerId(address.rpartition("/p2p/")[2])
        request: Request[None] = Request()
        await self._reach(peer_id, "", request, lambda _: request.answer(None))
        return peer_id

    async def disconnect(self, peer_id: PeerId) -> None:
        """Break the connection to a peer."""
        await self._check_up()
        key = (self._peer_id, peer_id, "disconnect")
        disconnect = partial(self._network.wires.disconnect, *key[:2])
        self._network.events.submit(0, key, disconnect, key[:2])

    async def connections(self) -> Sequence[Connection]:
        """Return the open connections, sorted by peer."""
        await self._check_up()
        return [Connection(peer_id, _ADDRESS) for peer_id in self._network.wires.neighbours(self._peer_id)]

    async def open_stream(self, peer_id: PeerId, protocol: str) -> HostStream:
        """Open a stream, connecting first if need be."""
        request: Request[HostStream] = Request()

        def open_it(target: MemoryHost) -> None:
            handler = target.handlers.get(protocol)
            if handler is None:
                request.refuse(f"expected {peer_id} to serve {protocol}, got no such protocol")
            elif len(target._serving) >= MAX_INBOUND_STREAMS:
                request.refuse(f"expected {peer_id} to take a stream, got one with {MAX_INBOUND_STREAMS} already")
            else:
                wire = self._network.wires.open(self._peer_id, peer_id, protocol)
                scope = trio.CancelScope()
                target._serving.add(scope)
                inbound = HostStream(self._peer_id, protocol, wire.accepted)
                self._network.nursery.start_soon(target._serve, inbound, wire.accepted, handler, scope)
                request.answer(HostStream(peer_id, protocol, wire.opened))

        return await self._reach(peer_id, protocol, request, open_it)

    async def _reach(
        self, peer_id: PeerId, protocol: str, request: Request[T], act: Callable[["MemoryHost"], None]
    ) -> T:
        """Do `act` at a peer once we are connected to it, and wait for what it answers."""
        self._check_up_now()
        network, key = self._network, (self._peer_id, peer_id, "reach", protocol)
        both = (self._peer_id, peer_id)

        def arrive() -> None:
            target = network.find(peer_id)
            if request.abandoned:
                return
            if not self.up or peer_id == self._peer_id:
                request.refuse(f"expected another host and ours to be up, got {self._peer_id} to {peer_id}")
            elif not network.links.reachable(self._peer_id, peer_id):
                timeout_s = network.links.model(self._peer_id, peer_id).dial_timeout_s
                refuse = partial(request.refuse, f"expected {peer_id}, got no answer")
                network.events.submit(timeout_s, key, refuse, both)
            elif target is None or (protocol and not (self.joined and target.joined)):
                request.refuse(f"expected to find {peer_id}, got no such peer")
            else:
                network.wires.connect(self._peer_id, peer_id)
                self.joined = target.joined = True
                act(target)

        # At once, not as an event: it changes nothing, and what it reads changes by events and injected faults alone.
        trips = _OPEN_ROUND_TRIPS + (0 if network.wires.connected(*both) else _CONNECT_ROUND_TRIPS)
        now_s = network.events.now_s()
        there_s = network.links.delay_s(self._peer_id, peer_id, protocol, now_s)
        back_s = network.links.delay_s(peer_id, self._peer_id, protocol, now_s)
        network.events.submit(trips * (there_s + back_s), key, arrive, both)
        return await request.wait()

    async def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol."""
        await self._check_up()
        self.handlers[protocol] = handler

    async def _serve(
        self, inbound: HostStream, end: MemoryStream, handler: StreamHandler, scope: trio.CancelScope
    ) -> None:
        try:
            with scope:
                await handler(inbound)
        except* (RemoteProtocolError, PeerUnavailableError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # As `host` says: these cost the stream only. Anything else is our bug and crashes.
        finally:
            self._serving.discard(scope)
            end.close()

    async def publish(self, topic: str, data: bytes) -> None:
        """Publish to a topic."""
        await self._check_up()
        message = GossipMessage(self._peer_id, bytes(data))

        def publish_it() -> None:
            if self.joined:  # we may have left since: what was published is on its way
                self._network.mesh.spread(topic, message)

        self._network.events.submit(0, (self._peer_id, topic, sha256(data).hexdigest()), publish_it, ())

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[GossipMessage]]:
        """Subscribe to a topic."""
        await self._check_up()
        mailbox = self._network.mesh.join(topic, self._peer_id)
        try:
            yield mailbox
        finally:
            self._network.mesh.leave(topic, self._peer_id, mailbox)

    async def provide(self, key: bytes) -> None:
        """Leave a provider record with the hosts in reach."""

        def leave_record(hosts: list[PeerId]) -> None:
            self._network.records.provide(key, self._peer_id, hosts, self._network.events.now_s())

        await self._look_up("provide", key, leave_record)

    async def find_providers(self, key: bytes, limit: int) -> Sequence[PeerId]:
        """Return the providers whose record is held by a host in reach, the closest to the key first."""
        now_s = self._network.events.now_s
        return await self._look_up("find", key, lambda hosts: self._network.records.find(key, hosts, now_s())[:limit])

    async def _look_up(self, what: str, key: bytes, act: Callable[[list[PeerId]], T]) -> T:
        self._check_up_now()
        network = self._network
        request: Request[T] = Request()

        def arrive() -> None:
            if not self.up or not self.joined:
                request.refuse(f"expected {self._peer_id} to be in the DHT, got a host that is down or alone")
            elif not request.abandoned:
                network.events.note(what, self._peer_id, detail=key.hex())
                request.answer(act(network.in_reach(self._peer_id)))

        delay_s = network.links.delay_s(self._peer_id, self._peer_id, what, key)
        event_key = (self._peer_id, what, key.hex())
        network.events.submit(2 * _LOOKUP_ROUND_TRIPS * delay_s, event_key, arrive, (self._peer_id,))
        return await request.wait()
