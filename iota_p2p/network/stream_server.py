"""Inbound streams of one protocol: calls are read, bounded, handled and answered.

Theory of operation. A stream carries one call at a time: head, admission, payload, handler, response, and again.
Two tasks take turns at it. One reads a request and goes on to handle and answer it; from then on the other reads,
which is how it notices that the caller goes away: then the handler is cancelled, and with it every call that the
handler makes, so that a cancellation travels down a chain of nested calls. The two live as long as their stream: a
task for each call, started to watch and cancelled again, cost a quarter of a small call's time. Whoever breaks a
rule loses the stream (the host resets it when we return) and is charged in the ledger.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from iota_p2p.network.framed_stream import FramedStream, SlowPeerError
from iota_p2p.network.host import HostStream
from iota_p2p.network.offences import OffenceLedger
from iota_p2p.network.stream_admission import ByteBudget
from iota_p2p.network.stream_limits import StreamLimits
from iota_p2p.network.traffic import Traffic
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.framing import Frame, Head, Kind
from iota_p2p_protocols.ids import ProtocolSpec

# Of an error's text in a response: a sentence, so that it fits the smallest header there is.
MAX_MESSAGE_CHARACTERS = 200
MAX_REASON_CHARACTERS = 64

Handle = Callable[[PeerId, Frame], Awaitable[Frame]]
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
_EXPECTED = (RemoteProtocolError, RefusedError, PeerUnavailableError, *_BROKEN)


@dataclass(frozen=True, slots=True)
class Inbound:
    """What all protocols' servers of one node share: bounds and counts.

    Attributes:
        limits: the bounds.
        ledger: who broke which rule.
        budget: payload bytes of requests being received or handled.
        calls: calls being handled, per peer.
        streams: open inbound streams, per peer.
        traffic: bytes of headers.
    """

    limits: StreamLimits
    ledger: OffenceLedger
    budget: ByteBudget
    calls: Counter[PeerId]
    streams: Counter[PeerId]
    traffic: Traffic

    def busy(self, peer_id: PeerId) -> bool:
        """True if no further call of this peer can be taken."""
        return self.calls[peer_id] >= self.limits.max_calls_per_peer or self.calls.total() >= self.limits.max_calls


class StreamServer:
    """Serves one protocol."""

    def __init__(self, spec: ProtocolSpec, handle: Handle, inbound: Inbound) -> None:
        self._spec = spec
        self._handle = handle
        self._inbound = inbound

    async def serve(self, stream: HostStream) -> None:
        """Serve the calls of one stream until either side has had enough."""
        peer_id, inbound = stream.peer_id, self._inbound
        full = inbound.streams[peer_id] >= inbound.limits.max_streams_per_peer
        if full or inbound.ledger.refuses(peer_id):
            return
        with _counted(inbound.streams, peer_id):
            framed = FramedStream(stream.stream, self._spec, inbound.limits, inbound.traffic)
            try:
                await _Conversation(peer_id, framed, self._handle, inbound).run()
            finally:
                await framed.aclose()


class _Conversation:
    """The calls of one stream, one after the other."""

    def __init__(self, peer_id: PeerId, framed: FramedStream, handle: Handle, inbound: Inbound) -> None:
        self._peer_id = peer_id
        self._framed = framed
        self._handle = handle
        self._inbound = inbound
        self._reading = False  # one of the two tasks
        self._turn = trio.lowlevel.ParkingLot()  # where the other one waits to read
        self._fresh = True  # no request has begun yet
        self._handling = False  # a request, whose response has not been begun
        self._answered = trio.Event()  # the latest request, to the response's last byte
        self._answered.set()
        self._patience = trio.CancelScope()  # with a caller that says nothing

    async def run(self) -> None:
        """Take calls until either side has had enough."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_turns, nursery.cancel_scope)
            await self._take_turns(nursery.cancel_scope)

    async def _take_turns(self, conversation: trio.CancelScope) -> None:
        try:
            while await self._serve_call():
                pass
        except RemoteProtocolError as error:
            self._inbound.ledger.charge(self._peer_id, error.rule, str(error))
        except _BROKEN:
            pass  # the caller went away, which it may
        conversation.cancel()

    async def _serve_call(self) -> bool:
        """Wait for our turn to read, read a request and see to it; return False if the conversation is over."""
        while self._reading:
            await self._turn.park()
        self._reading = True
        head = await self._next_head()
        if head is None:
            return False
        with _counted(self._inbound.calls, self._peer_id):
            async with self._inbound.budget.admit(self._peer_id, head.payload_bytes):
                request = await self._framed.receive_payload()
                self._handling, self._answered = True, trio.Event()
                self._reading = False
                self._turn.unpark()
                response = await self._answer(request)
            self._handling = False
            await self._framed.send_in_time(response)
        self._answered.set()
        self._patience.deadline = trio.current_time() + self._inbound.limits.idle_s
        return True

    async def _next_head(self) -> Head | None:
        """Return the head of the next request that can be taken; None if there will be none."""
        while await self._begins():
            self._fresh = False
            head = await self._framed.receive_head()
            if head.kind is not Kind.REQUEST:
                raise MalformedError("frame-kind", f"expected a request, got a frame of kind {head.kind.value}")
            if not self._inbound.busy(self._peer_id):
                return head
            await self._framed.skip_payload()
            await self._framed.send_in_time(_refusal("busy", "expected room for a call, got as many as we take"))
        return None

    async def _begins(self) -> bool:
        """Wait for a next request to begin; return False if the caller has gone, or has had its time."""
        limits = self._inbound.limits
        idle_s = limits.header_timeout_s if self._fresh else limits.idle_s
        begun = False
        with trio.CancelScope() as self._patience:
            if self._answered.is_set():  # else whoever answers sets it
                self._patience.deadline = trio.current_time() + idle_s
            begun = await self._framed.begin()
        if begun and self._handling:
            raise MalformedError("frame-early", "expected no bytes before the response, got some")
        if self._patience.cancelled_caught and self._fresh:
            raise SlowPeerError("half-open", f"expected a request within {idle_s} s, got none")
        if not self._handling and not self._answered.is_set():
            await self._answered.wait()  # all of it is written, only its task does not know yet
        return begun and (self._fresh or not self._inbound.ledger.refuses(self._peer_id))

    async def _answer(self, request: Frame) -> Frame:
        """Return the handler's response, or what became of it."""
        try:
            return await self._handle(self._peer_id, request)
        except _EXPECTED as error:
            return self._explain(error)
        except BaseExceptionGroup as group:  # of a handler that has a nursery
            expected, rest = group.split(_EXPECTED)
            if rest is not None or expected is None:
                raise
            return self._explain(_first(expected))

    def _explain(self, error: BaseException) -> Frame:
        if isinstance(error, RefusedError):
            return _refusal(error.reason, _sentence(error))
        if isinstance(error, RemoteProtocolError):
            self._inbound.ledger.charge(self._peer_id, error.rule, str(error))
            return _refusal(error.rule, _sentence(error))
        return Frame(Kind.FAILED, {"message": _sentence(error)}, b"")


@contextmanager
def _counted(counts: Counter[PeerId], peer_id: PeerId) -> Iterator[None]:
    counts[peer_id] += 1
    try:
        yield
    finally:
        counts[peer_id] -= 1
        if not counts[peer_id]:
            del counts[peer_id]


def _refusal(reason: str, message: str) -> Frame:
    return Frame(Kind.REFUSED, {"message": message, "reason": reason[:MAX_REASON_CHARACTERS]}, b"")


def _sentence(error: BaseException) -> str:
    """Return an error's text in bounded ASCII: parts of it may be the peer's."""
    return str(error).encode("ascii", "backslashreplace")[:MAX_MESSAGE_CHARACTERS].decode()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
