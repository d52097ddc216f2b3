"""The connections and streams of the simulated network, and the faults that befall them."""

from collections.abc import Iterable
from functools import partial

from iota_p2p.network.link import Direction, Links
from iota_p2p.network.memory_events import EventQueue
from iota_p2p.network.memory_stream import Wire
from iota_p2p_crypto.identity import PeerId

_Pair = tuple[PeerId, PeerId]  # sorted


def _pair(one: PeerId, other: PeerId) -> _Pair:
    return (one, other) if one < other else (other, one)


class Wires:
    """Who is connected to whom, and the streams that run over each connection."""

    def __init__(self, events: EventQueue, links: Links) -> None:
        self._events = events
        self._links = links
        self._connected: set[_Pair] = set()
        self._streams: dict[_Pair, dict[int, Wire]] = {}
        self._num_opened = 0
        self._num_blocks = 0
        self._blocks: dict[Direction, int] = {}

    @property
    def num_streams(self) -> int:
        """How many streams are still open at one end at least, those whose connection broke not counted."""
        return sum(len(streams) for streams in self._streams.values())

    def connected(self, one: PeerId, other: PeerId) -> bool:
        """True if the two have a connection."""
        return _pair(one, other) in self._connected

    def neighbours(self, peer_id: PeerId) -> list[PeerId]:
        """Return the peers connected to one, sorted."""
        return sorted(pair[pair[0] == peer_id] for pair in self._connected if peer_id in pair)

    def connect(self, source: PeerId, target: PeerId) -> None:
        """Connect two hosts, if they are not."""
        if not self.connected(source, target):
            self._events.note("connect", source, target)
            self._connected.add(_pair(source, target))

    def disconnect(self, one: PeerId, other: PeerId) -> None:
        """Break the connection of two hosts with all its streams, if there is one."""
        pair = _pair(one, other)
        if pair in self._connected:
            self._events.note("break", *pair)
            self._connected.remove(pair)
            for wire in self._streams.pop(pair, {}).values():
                wire.break_off()

    def disconnect_all(self, peer_id: PeerId) -> None:
        """Break every connection of a host."""
        for other in self.neighbours(peer_id):
            self.disconnect(peer_id, other)

    def leave(self, peer_id: PeerId) -> None:
        """Close a host's end of every stream, then its connections: what it has sent still arrives."""
        for pair in sorted(pair for pair in self._connected if peer_id in pair):
            for wire in list(self._streams.get(pair, {}).values()):
                wire.close_end(peer_id)
            self._connected.remove(pair)

    def open(self, source: PeerId, target: PeerId, protocol: str) -> Wire:
        """Open a stream between two connected hosts."""
        self._events.note("open", source, target, protocol)
        streams = self._streams.setdefault(_pair(source, target), {})
        self._num_opened += 1
        closed = partial(streams.pop, self._num_opened, None)
        wire = Wire(source, target, protocol, events=self._events, links=self._links, on_closed=closed)
        streams[self._num_opened] = wire
        return wire

    def block(self, sources: Iterable[PeerId], targets: Iterable[PeerId]) -> None:
        """Let nothing pass from `sources` to `targets`; their connections break unless it heals in time."""
        several = list(targets)
        pairs = [(source, target) for source in sources for target in several if source != target]
        self._num_blocks += 1
        for pair in pairs:
            self._blocks.setdefault(pair, self._num_blocks)
            self._links.block(*pair)
        give_up = partial(self._give_up, pairs, self._num_blocks)
        self._events.submit(self._links.default.break_after_s, ("block", str(self._num_blocks)), give_up, ())

    def _give_up(self, pairs: Iterable[Direction], block: int) -> None:
        """Break what is still blocked by the same block: an event for each connection, as each wakes two hosts."""
        for pair in pairs:
            if self._blocks.get(pair) == block and self.connected(*pair):
                self._events.submit(0, ("give up", *pair), partial(self.disconnect, *pair), pair)

    def heal(self) -> None:
        """Let everything pass again; what waited in streams goes on its way."""
        self._blocks.clear()
        self._links.heal()
        self._events.submit(0, ("heal",), self._release)

    def _release(self) -> None:
        for pair in sorted(self._streams):
            for wire in self._streams[pair].values():
                for flow in wire.flows:
                    flow.release_held()
