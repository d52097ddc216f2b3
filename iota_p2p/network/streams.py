"""Requests and responses between two peers, over pooled streams.

    async with open_streams(host) as streams:
        await streams.serve(spec, handler)                        # handler(peer_id, request) -> Response
        response = await streams.call(peer_id, spec, Request(fields, payload))

A call may stay open for as long as the other side needs (a microbatch's whole way down the pipeline and back):
timeouts are the caller's. Cancelling a call closes its stream, which cancels the handler at the other end.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from iota_p2p.network.framed_stream import FramedStream
from iota_p2p.network.host import Host
from iota_p2p.network.offences import OffenceLedger
from iota_p2p.network.stream_admission import ByteBudget
from iota_p2p.network.stream_limits import StreamLimits
from iota_p2p.network.stream_pool import StreamPool
from iota_p2p.network.stream_server import MAX_MESSAGE_CHARACTERS, MAX_REASON_CHARACTERS, Inbound, StreamServer
from iota_p2p.network.traffic import Traffic
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.framing import Fields, Frame, Kind, Payload
from iota_p2p_protocols.ids import ProtocolSpec


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks: canonical fields and raw bytes, each within the protocol's limits."""

    header: Fields
    payload: Payload = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What it is answered."""

    header: Fields
    payload: Payload = b""


Handler = Callable[[PeerId, Request], Awaitable[Response]]


class Streams:
    """Calls to and from other peers; open one with `open_streams`.

    Attributes:
        ledger: what peers did wrong over streams; one that did too much is refused for a while.
        traffic: bytes of headers, those we send.
    """

    def __init__(self, host: Host, limits: StreamLimits, ledger: OffenceLedger) -> None:
        self.ledger = ledger
        self._host = host
        self._limits = limits
        self.traffic = Traffic()
        self._pool = StreamPool(host, limits, self.traffic)
        budget = ByteBudget(limits.max_payload_bytes, limits.max_payload_bytes_per_peer)
        self._inbound = Inbound(limits, ledger, budget, Counter(), Counter(), self.traffic)

    async def serve(self, spec: ProtocolSpec, handler: Handler) -> None:
        """Serve a protocol from now on.

        The handler is cancelled when its caller goes away. It may raise RefusedError (declined, nobody's fault),
        RemoteProtocolError (the caller's fault: charged), PeerUnavailableError (somebody further on); anything
        else is our bug and crashes. One that calls others must not let *their* faults out as RemoteProtocolError.
        """
        if spec.max_payload_bytes > self._limits.max_payload_bytes_per_peer:
            raise LocalProtocolError(f"expected {spec.id} to fit the limits per peer, got {spec.max_payload_bytes}")

        async def handle(peer_id: PeerId, frame: Frame) -> Frame:
            response = await handler(peer_id, Request(frame.fields, frame.payload))
            return Frame(Kind.OK, response.header, response.payload)

        await self._host.handle(spec.id, StreamServer(spec, handle, self._inbound).serve)

    async def call(self, peer_id: PeerId, spec: ProtocolSpec, request: Request) -> Response:
        """Send a request and wait for the response.

        A pooled stream may have been closed by the other side meanwhile. Then the request is sent once more on a
        fresh one, if no byte of a response had come, and either the request had not been written to its end
        (so nobody can have handled it) or the protocol is idempotent.

        Raises:
            PeerUnavailableError: if the peer cannot be reached, goes away, or says so of somebody further on.
            RefusedError: if it declines.
            RemoteProtocolError: if its response breaks a rule; it has been charged.
        """
        frame = Frame(Kind.REQUEST, request.header, request.payload)
        framed = self._pool.take_idle(peer_id, spec)
        if framed is not None:
            attempt = _Attempt(framed, frame)
            try:
                return await self._try(peer_id, spec, attempt)
            except PeerUnavailableError:
                if not attempt.broke or not framed.untouched or (attempt.written and not spec.idempotent):
                    raise
        return await self._try(peer_id, spec, _Attempt(await self._pool.open(peer_id, spec), frame))

    async def _try(self, peer_id: PeerId, spec: ProtocolSpec, attempt: "_Attempt") -> Response:
        in_step = False
        try:
            answer = await attempt.run()
            in_step = True
            return _read_answer(peer_id, answer)
        except RemoteProtocolError as error:
            in_step = False
            self.ledger.charge(peer_id, error.rule, str(error))
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            attempt.broke = True
            raise PeerUnavailableError(f"expected a response of {peer_id} to {spec.id}, got {error}") from error
        finally:
            if in_step:
                await self._pool.put(peer_id, spec, attempt.framed)
            else:
                await attempt.framed.aclose()

    async def run(self) -> None:
        """Close streams that were idle for too long, until cancelled."""
        await self._pool.run()

    async def aclose(self) -> None:
        """Close the idle streams."""
        await self._pool.aclose()


@dataclass(slots=True)
class _Attempt:
    """One request on one stream, and how far it came."""

    framed: FramedStream
    request: Frame
    written: bool = False
    broke: bool = False

    async def run(self) -> Frame:
        await self.framed.send(self.request)
        self.written = True
        if not await self.framed.begin():
            raise trio.BrokenResourceError("the end of the stream")
        await self.framed.receive_head()
        return await self.framed.receive_payload()


def _read_answer(peer_id: PeerId, answer: Frame) -> Response:
    """Return the response in a frame, or raise what the frame says instead."""
    if answer.kind is Kind.OK:
        return Response(answer.fields, answer.payload)
    message = answer.fields.get("message")
    if answer.kind is Kind.REQUEST or not isinstance(message, str) or answer.payload:
        raise MalformedError("response", f"expected a response, got a frame of kind {answer.kind.value}")
    message = message[:MAX_MESSAGE_CHARACTERS]
    if answer.kind is Kind.FAILED:
        raise PeerUnavailableError(f"expected {peer_id} to complete the request, got: {message}")
    reason = answer.fields.get("reason")
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARACTERS:
        raise MalformedError("response", f"expected a refusal's reason, got {reason!r:.80}")
    raise RefusedError(reason, message)


@asynccontextmanager
async def open_streams(
    host: Host, limits: StreamLimits | None = None, ledger: OffenceLedger | None = None
) -> AsyncIterator[Streams]:
    """Put calls on a host for as long as the context lasts."""
    streams = Streams(host, limits or StreamLimits(), ledger or OffenceLedger())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(streams.run)
        try:
            yield streams
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):  # else the first close raises, and the other streams stay open
                await streams.aclose()
