"""Comparing views with one other peer, from both ends (spec: protocols/spec/membership.md)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from iota_p2p.membership.intake import Intake
from iota_p2p.membership.member import Member
from iota_p2p.network.streams import Request, Response
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols import view_exchange
from iota_p2p_protocols.ids import VIEW
from iota_p2p_protocols.view_exchange import Compare, Compared, Swap


class Found(Enum):
    """What a peer that asked us turned out to bring."""

    NEWS = "facts we did not know"
    RETURNED = "itself, whom we believed gone, or word that we were"


@dataclass(slots=True)
class ViewExchange:
    """Makes our view and another peer's equal.

    Attributes:
        member: whose view.
        intake: how facts get into it.
        on_found: told what a peer that asked us brought along.
    """

    member: Member
    intake: Intake
    on_found: Callable[[Found], None] = lambda _: None

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
        compare = Compare(fingerprint=view.fingerprint, doubts=view_exchange.pack_doubts(view, peer_id))
        answer = await self.member.network.streams.call(peer_id, VIEW, Request(compare.to_fields()))
        compared = Compared.from_fields(answer.header)
        news = self.intake.take_doubts(compared.doubts)
        if compared.same:
            return news
        theirs = view_exchange.unpack_summary(bytes(answer.payload))
        swap, entries = view_exchange.plan_swap(view, theirs)
        answer = await self.member.network.streams.call(peer_id, VIEW, Request(swap.to_fields(), entries))
        return news + self.intake.take_all(view_exchange.unpack_entries(bytes(answer.payload)))

    async def _answer(self, peer_id: PeerId, request: Request) -> Response:
        view = self.member.view
        if "fingerprint" in request.header:
            compare = Compare.from_fields(request.header)
            doubted = self.intake.take_doubts(compare.doubts)
            if doubted or (view.advert_of(peer_id) is not None and not view.is_live(peer_id)):
                self.on_found(Found.RETURNED)
            same = compare.fingerprint == view.fingerprint
            header = Compared(same=same, doubts=view_exchange.pack_doubts(view, peer_id)).to_fields()
            return Response(header, b"" if same else view_exchange.pack_summary(view))
        swap = Swap.from_fields(request.header)
        wanted = view_exchange.wanted_peers(swap)
        if self.intake.take_all(view_exchange.unpack_entries(bytes(request.payload))):
            self.on_found(Found.NEWS)
        return Response({}, view_exchange.pack_entries(view, wanted, wanted))
