"""Dial-back over the wire: asking a peer to dial us, and dialling those who ask.

The rules, and why they are safe, are in `iota_p2p_protocols.dial_back`.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p.network.dial_probe import identify_listener
from iota_p2p.network.host import Host
from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.dial_back import Allowance, DialBackAnswer, DialBackRequest, direct_ip
from iota_p2p_protocols.errors import MalformedError, PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import DIAL_BACK

# Three round trips around the world and a lost packet; a filtered port keeps us no longer.
DIAL_TIMEOUT_S = 4.0


@dataclass(frozen=True, slots=True)
class DialBack:
    """Dials callers at the IP address they are connected from, one at a time.

    Attributes:
        host: knows where a caller is connected from.
        identify: says who listens at an IP address and port; raises as `identify_listener`.
    """

    host: Host
    identify: Callable[[str, int], Awaitable[PeerId]] = identify_listener
    _allowance: Allowance = field(default_factory=Allowance)
    _dialling: trio.Lock = field(default_factory=trio.Lock)

    async def serve(self, streams: Streams) -> None:
        """Answer others from now on."""
        await streams.serve(DIAL_BACK, self._answer)

    async def _answer(self, peer_id: PeerId, request: Request) -> Response:
        ports = DialBackRequest.from_fields(request.header).ports
        ip = direct_ip(
            connection.address for connection in await self.host.connections() if connection.peer_id == peer_id
        )
        if ip is None:
            raise RefusedError("dial-back-relayed", "expected a direct connection from an IP address, got none")
        if self._dialling.locked():  # a queue would be a place to pile up requests
            raise RefusedError("dial-back-busy", "expected no other dial-back at work: ask again in a moment")
        self._allowance.take(peer_id, ip, trio.current_time())
        async with self._dialling:
            reached = tuple([await self._reaches(peer_id, ip, port) for port in ports])
        return Response(DialBackAnswer(ip=ip, reached=reached).to_fields())

    async def _reaches(self, peer_id: PeerId, ip: str, port: int) -> bool:
        with trio.move_on_after(DIAL_TIMEOUT_S):
            try:
                return await self.identify(ip, port) == peer_id
            except (PeerUnavailableError, RemoteProtocolError):
                return False
        return False


async def ask_dial_back(streams: Streams, peer_id: PeerId, ports: Sequence[int]) -> DialBackAnswer:
    """Ask a peer to dial us at some ports; the caller sets the time limit (DIAL_TIMEOUT_S for each port and more).

    Raises:
        PeerUnavailableError: if it does not answer, or does not offer this.
        RefusedError: if it will not dial us now; `reason` says why.
        RemoteProtocolError: if its answer is malformed.
    """
    response = await streams.call(peer_id, DIAL_BACK, Request(DialBackRequest(ports=tuple(ports)).to_fields()))
    answer = DialBackAnswer.from_fields(response.header)
    if len(answer.reached) != len(ports):
        raise MalformedError("dial-back-ports", f"expected {len(ports)} outcomes, got {len(answer.reached)}")
    return answer
