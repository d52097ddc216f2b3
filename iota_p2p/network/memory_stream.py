"""Simulated byte streams: two flows, one per direction, over the links between two hosts.

A flow is reliable and in order. Its writer waits while more than a window of bytes is unread, as under yamux; its
bytes queue on the sender's uplink and the receiver's downlink in segments, so that flows share a line fairly.
"""

import zlib
from collections import deque
from collections.abc import Callable
from functools import partial

import trio
from trio.lowlevel import ParkingLot

from iota_p2p.network.link import Links
from iota_p2p.network.memory_events import EventQueue
from iota_p2p_crypto.identity import PeerId

# What one flow may put on a line before the others have their turn. Small enough that 1 MB/s shares it every
# 64 ms, large enough that a simulated 16 MiB costs some hundred events.
SEGMENT_BYTES = 64 * 1024
_DEFAULT_RECEIVE_BYTES = 64 * 1024
_END = b""  # as a segment: the writer has sent its last byte
_RESET = None  # as a segment: the writer has closed the whole stream

_Segment = bytes | None


class Flow:
    """One direction of a stream: what `source` has sent and `target` has not read.

    `held` is where segments wait behind a partition; the network lets them go when it heals.
    """

    def __init__(self, source: PeerId, target: PeerId, label: str, events: EventQueue, links: Links) -> None:
        self.source = source
        self.target = target
        self.window_bytes = links.model(source, target).window_bytes
        self.unread_bytes = 0
        self.closed_by_writer = False  # it sent _END or _RESET: no more segments
        self.ended = False  # _END has arrived
        self.broken = False
        self.held: list[Callable[[], None]] = []
        self.room = ParkingLot()
        self.news = ParkingLot()
        self.on_reset: Callable[[], None] = self.wake
        self.inbox: deque[bytes] = deque()
        self._label = label
        self._events = events
        self._links = links
        self._outbox: list[_Segment] = []
        self._in_order_s = 0.0
        self._num_coming_in = 0  # segments on the receiver's line
        self._history = 0

    def send(self, segment: _Segment) -> None:
        """Hand a segment to the network, which takes up all segments of this instant together."""
        self._history = zlib.crc32(segment or b"", self._history)
        if segment:
            self.unread_bytes += len(segment)
        else:
            self.closed_by_writer = True
        if not self._outbox:
            self._submit(0, self._transmit, ())
        self._outbox.append(segment)

    def break_off(self) -> None:
        """Lose everything under way; both ends notice at once."""
        self.broken = True
        self._outbox.clear()
        self.held.clear()
        self.wake()

    def release_held(self) -> None:
        """Let go what waited behind a partition, in order."""
        held, self.held = self.held, []
        for arrive in held:
            arrive()

    def wake(self) -> None:
        """Let reader and writer look again."""
        self.room.unpark_all()
        self.news.unpark_all()

    def _transmit(self) -> None:
        segments, self._outbox = self._outbox, []
        now_s = self._events.now_s()
        for index, segment in enumerate(segments):
            size_bytes = len(segment or b"")
            left_at_s = self._links.leave_at_s(self.source, size_bytes, now_s)
            crossing_s = self._links.cross_s(self.source, self.target, self._label, self._history, index)
            self._in_order_s = max(self._in_order_s, left_at_s + crossing_s)
            self._submit(self._in_order_s - now_s, partial(self._arrive, segment), (self.target,))

    def _submit(self, delay_s: float, action: Callable[[], None], wakes: tuple[PeerId, ...]) -> None:
        # Segments of one flow that fall due together were submitted under one history: they stay in order.
        key = (self.source, self.target, self._label, str(self._history))
        self._events.submit(delay_s, key, action, wakes)

    def _arrive(self, segment: _Segment) -> None:
        if self.broken:
            return
        if self.held or (self.source, self.target) in self._links.blocked:
            self.held.append(partial(self._arrive, segment))
            return
        now_s = self._events.now_s()
        in_at_s = self._links.arrive_at_s(self.target, len(segment or b""), now_s)
        self._num_coming_in += 1
        if in_at_s <= now_s and self._num_coming_in == 1:
            self._deliver(segment)
        else:
            self._submit(in_at_s - now_s, partial(self._deliver, segment), (self.target,))

    def _deliver(self, segment: _Segment) -> None:
        self._num_coming_in -= 1
        if self.broken:
            return
        if segment is _RESET:
            self.on_reset()
        elif segment == _END:
            self.ended = True
        else:
            self.inbox.append(segment)
        self._events.note("segment", self.source, self.target, f"{self._label} {len(segment or b'')}")
        self.news.unpark_all()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a simulated stream.

    `aclose` resets unless both directions have ended, as the host interface says: the other end reads what was
    sent before, then gets `BrokenResourceError`. Cancelling `send_all` leaves an unknown part sent.
    """

    def __init__(self, outgoing: Flow, incoming: Flow, on_close: Callable[[], None]) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._on_close = on_close
        self._closed = False
        self._reset = False  # by the other end

    def _check(self, flow: Flow) -> None:
        if self._closed:
            raise trio.ClosedResourceError("expected an open stream, got one closed by this end")
        if flow.broken:
            raise trio.BrokenResourceError("expected an open stream, got one whose connection broke")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; returns when the window has taken them, not when they have arrived."""
        await trio.lowlevel.checkpoint()
        flow = self._outgoing
        view = memoryview(data).cast("B")
        for start in range(0, max(1, len(view)), SEGMENT_BYTES):
            segment = bytes(view[start : start + SEGMENT_BYTES])
            self._check_writable()
            while flow.unread_bytes and flow.unread_bytes + len(segment) > flow.window_bytes:
                await flow.room.park()
                self._check_writable()
            if segment:
                flow.send(segment)

    def _check_writable(self) -> None:
        self._check(self._outgoing)
        if self._reset:
            raise trio.BrokenResourceError("expected an open stream, got one closed by the other end")
        if self._outgoing.closed_by_writer:
            raise trio.ClosedResourceError("expected to send before send_eof, got a send after it")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the window has room."""
        await trio.lowlevel.checkpoint()
        self._check_writable()
        while self._outgoing.unread_bytes >= self._outgoing.window_bytes:
            await self._outgoing.room.park()
            self._check_writable()

    async def send_eof(self) -> None:
        """Half-close: the other end reads what was sent, then an empty read."""
        await trio.lowlevel.checkpoint()
        self._check(self._outgoing)
        if not self._outgoing.closed_by_writer:
            self._outgoing.send(_END)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return 1 to `max_bytes` bytes, or none at the end."""
        flow = self._incoming
        if not (flow.inbox or flow.ended or flow.broken or self._closed or self._reset):
            await flow.news.park()
        else:
            await trio.lowlevel.checkpoint()
        while True:
            self._check(flow)
            if flow.inbox:
                return self._take(_DEFAULT_RECEIVE_BYTES if max_bytes is None else max_bytes)
            if flow.ended:
                return b""
            if self._reset:
                raise trio.BrokenResourceError("expected more bytes, got a reset by the other end")
            await flow.news.park()

    def _take(self, max_bytes: int) -> bytes:
        flow = self._incoming
        segment = flow.inbox.popleft()
        taken = segment[:max_bytes]
        if len(taken) < len(segment):
            flow.inbox.appendleft(segment[max_bytes:])
        flow.unread_bytes -= len(taken)
        flow.room.unpark_all()
        return taken

    def on_reset(self) -> None:
        """Be told that the other end has closed: reads end after what came before, writes fail."""
        self._reset = True
        self._outgoing.wake()

    def close(self) -> None:
        """Close this end now."""
        if self._closed:
            return
        self._closed = True
        if not (self._outgoing.broken or self._reset):  # else nobody is there to hear it
            self._outgoing.send(_RESET)
        self._incoming.wake()
        self._outgoing.wake()
        self._on_close()

    async def aclose(self) -> None:
        """Close this end; safe to call again."""
        self.close()
        await trio.lowlevel.checkpoint()


class Wire:
    """Both flows and both ends of one stream; `on_closed` is called when both ends are closed."""

    def __init__(
        self,
        opener: PeerId,
        acceptor: PeerId,
        label: str,
        *,
        events: EventQueue,
        links: Links,
        on_closed: Callable[[], object],
    ) -> None:
        there = Flow(opener, acceptor, label, events, links)
        back = Flow(acceptor, opener, label, events, links)
        self.flows = (there, back)
        self.opened = MemoryStream(there, back, self._on_close)
        self.accepted = MemoryStream(back, there, self._on_close)
        there.on_reset = self.accepted.on_reset
        back.on_reset = self.opened.on_reset
        self._on_closed = on_closed
        self._open_ends = 2

    def break_off(self) -> None:
        """Break both directions."""
        for flow in self.flows:
            flow.break_off()

    def close_end(self, peer_id: PeerId) -> None:
        """Close the end that belongs to a peer."""
        end = self.opened if self.flows[0].source == peer_id else self.accepted
        end.close()

    def _on_close(self) -> None:
        self._open_ends -= 1
        if not self._open_ends:
            self._on_closed()
