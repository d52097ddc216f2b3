"""Hello over the wire: versions, run and clock, before anything else is said to a new peer."""

from collections.abc import Callable
from dataclasses import dataclass

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.hello import Hello, agree, clock_offset_s
from iota_p2p_protocols.ids import HELLO, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Greeted:
    """What a hello found out.

    Attributes:
        hello: what the other side said of itself.
        version: the protocol version agreed upon.
        clock_offset_s: how far its clock is ahead of ours.
        round_trip_s: how long the answer took.
    """

    hello: Hello
    version: int
    clock_offset_s: float
    round_trip_s: float


@dataclass(frozen=True, slots=True)
class Greeting:
    """Says and answers hello.

    Attributes:
        streams: how peers are reached.
        run_id: our run; zeros to follow the other's.
        software: our name and version.
        clock: Unix seconds.
    """

    streams: Streams
    run_id: bytes
    software: str
    clock: Callable[[], float]

    async def serve(self) -> None:
        """Answer others from now on."""
        await self.streams.serve(HELLO, self._answer)

    async def greet(self, peer_id: PeerId) -> Greeted:
        """Say hello to a peer.

        Raises:
            PeerUnavailableError: if it does not answer.
            RefusedError: if it will not speak with us; `reason` says why.
            RemoteProtocolError: if we cannot speak with it, or its answer is malformed.
        """
        sent_s = self.clock()
        answer = await self.streams.call(peer_id, HELLO, Request(self._hello().to_fields()))
        received_s = self.clock()
        theirs = Hello.from_fields(answer.header)
        version = agree(self._hello(), theirs)
        offset_s = clock_offset_s(theirs, sent_s, received_s)
        return Greeted(theirs, version, offset_s, received_s - sent_s)

    async def _answer(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may greet
        agree(self._hello(), Hello.from_fields(request.header))  # raises: the caller is told the broken rule
        return Response(self._hello().to_fields())

    def _hello(self) -> Hello:
        return Hello(
            oldest_version=OLDEST_PROTOCOL_VERSION,
            newest_version=PROTOCOL_VERSION,
            run_id=self.run_id,
            software=self.software,
            clock_ms=int(self.clock() * 1000),
        )
