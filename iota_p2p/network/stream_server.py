"""Inbound streams of one protocol: calls are read, bounded, handled and answered.

Theory of operation. A stream carries one call at a time: head, admission, payload, handler, response, and again.
While the handler runs the stream is watched: when the caller goes away the handler is cancelled, and with it every
call that the handler makes, so that a cancellation travels down a chain of nested calls. Whoever breaks a rule
loses the stream (the host resets it when we return) and is charged in the ledger.
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
                await self._serve_calls(peer_id, framed)
            except RemoteProtocolError as error:
                inbound.ledger.charge(peer_id, error.rule, str(error))
            except _BROKEN:
                pass  # the caller went away, which it may
            finally:
                await framed.aclose()

    async def _serve_calls(self, peer_id: PeerId, framed: FramedStream) -> None:
        limits = self._inbound.limits
        with trio.move_on_after(limits.header_timeout_s) as fresh:
            if not await framed.begin():
                return
        if fresh.cancelled_caught:
            raise SlowPeerError("half-open", f"expected a request within {limits.header_timeout_s} s, got none")
        while True:
            await self._serve_call(peer_id, framed)
            begun = False
            with trio.move_on_after(limits.idle_s):
                begun = await framed.begin()
            if not begun or self._inbound.ledger.refuses(peer_id):
                return

    async def _serve_call(self, peer_id: PeerId, framed: FramedStream) -> None:
        head = await framed.receive_head()
        if head.kind is not Kind.REQUEST:
            raise MalformedError("frame-kind", f"expected a request, got a frame of kind {head.kind.value}")
        if self._inbound.busy(peer_id):
            await framed.skip_payload()
            await framed.send_in_time(_refusal("busy", "expected room for a call, got as many as we take"))
            return
        with _counted(self._inbound.calls, peer_id):
            await self._serve_admitted(peer_id, framed, head)

    async def _serve_admitted(self, peer_id: PeerId, framed: FramedStream, head: Head) -> None:
        async with self._inbound.budget.admit(peer_id, head.payload_bytes):
            request = await framed.receive_payload()
            response: Frame | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, peer_id, framed, nursery.cancel_scope)
                response = await self._answer(peer_id, request)
                nursery.cancel_scope.cancel()
        if response is None:
            raise trio.BrokenResourceError("expected the caller to wait for its response, got none")
        await framed.send_in_time(response)

    async def _watch(self, peer_id: PeerId, framed: FramedStream, handler: trio.CancelScope) -> None:
        """Cancel the handler when the caller goes away or breaks a rule."""
        try:
            await framed.wait_until_gone()
        except RemoteProtocolError as error:
            self._inbound.ledger.charge(peer_id, error.rule, str(error))
        handler.cancel()

    async def _answer(self, peer_id: PeerId, request: Frame) -> Frame:
        """Return the handler's response, or what became of it."""
        try:
            return await self._handle(peer_id, request)
        except _EXPECTED as error:
            return self._explain(peer_id, error)
        except BaseExceptionGroup as group:  # of a handler that has a nursery
            expected, rest = group.split(_EXPECTED)
            if rest is not None or expected is None:
                raise
            return self._explain(peer_id, _first(expected))

    def _explain(self, peer_id: PeerId, error: BaseException) -> Frame:
        if isinstance(error, RefusedError):
            return _refusal(error.reason, _sentence(error))
        if isinstance(error, RemoteProtocolError):
            self._inbound.ledger.charge(peer_id, error.rule, str(error))
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
