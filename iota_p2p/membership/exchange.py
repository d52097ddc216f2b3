"""Comparing views with one other peer, from both ends (spec: protocols/spec/membership.md)."""

from dataclasses import dataclass

from iota_p2p.membership.intake import Intake
from iota_p2p.membership.member import Member
from iota_p2p.network.streams import Request, Response
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols import view_exchange
from iota_p2p_protocols.ids import VIEW
from iota_p2p_protocols.view_exchange import Compare, Compared, Swap


@dataclass(frozen=True, slots=True)
class ViewExchange:
    """Makes our view and another peer's equal."""

    member: Member
    intake: Intake

    async def serve(self) -> None:
        """Answer others from now on."""
        await self.member.network.streams.serve(VIEW, self._answer)

    async def run_with(self, peer_id: PeerId) -> int:
        """Compare views with a peer; return how many facts were news to us.

        Cancelling loses nothing: what was taken stays taken.

        Raises:
            PeerUnavailableError: if the peer does not answer.
            RefusedError: if it declines.
            RemoteProtocolError: if its answer breaks a rule.
        """
        view = self.member.view
        compare = Compare(fingerprint=view.fingerprint)
        answer = await self.member.network.streams.call(peer_id, VIEW, Request(compare.to_fields()))
        if Compared.from_fields(answer.header).same:
            return 0
        swap, entries = view_exchange.plan_swap(view, view_exchange.unpack_summary(bytes(answer.payload)))
        answer = await self.member.network.streams.call(peer_id, VIEW, Request(swap.to_fields(), entries))
        return self.intake.take_all(view_exchange.unpack_entries(bytes(answer.payload)))

    async def _answer(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may ask
        view = self.member.view
        if "fingerprint" in request.header:
            same = Compare.from_fields(request.header).fingerprint == view.fingerprint
            return Response(Compared(same=same).to_fields(), b"" if same else view_exchange.pack_summary(view))
        swap = Swap.from_fields(request.header)
        wanted = view_exchange.wanted_peers(swap)
        self.intake.take_all(view_exchange.unpack_entries(bytes(request.payload)))
        return Response({}, view_exchange.pack_entries(view, wanted))
