"""Comparing bulletins with a few other peers after every epoch: what gossip missed must not divide the validators.

request   {"known": digests of the envelopes we have}
response  {} and what we lack as payload: (length 4 bytes big-endian || envelope)*

Exchanged are registrations, on which the electorate depends, accusations, on which scores do, and the newest certified
result, with whose seed whoever comes later begins. An envelope is checked as if it had come by gossip from its signer,
but whoever passes on a bad one is charged for it.
"""

import logging
from collections.abc import Mapping
from typing import Annotated

import trio
from pydantic import Field

from iota_p2p.membership.member import open_recent
from iota_p2p.network.streams import Request, Response
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.docket import Docket
from iota_p2p.validation.evidence_exchange import envelopes_in
from iota_p2p.validation.series import put
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.domains import ACCUSATION, REGISTRATION, RESULT
from iota_p2p_crypto.envelope import domain_of
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import IgnoreError, MalformedError, PeerUnavailableError, RefusedError
from iota_p2p_protocols.ids import BULLETIN
from iota_p2p_protocols.message import DigestField, Message, open_message
from iota_p2p_protocols.scoring.accusation import Accusation
from iota_p2p_protocols.scoring.election import Registration
from iota_p2p_protocols.scoring.result import EpochResult

PARTNERS = 3  # asked after every epoch: what half of all peers have, seven of eight find
PATIENCE_S = 5.0
MAX_KNOWN = 4096  # as many as there are candidates; of more, only some are named, and come again

_log = logging.getLogger(__name__)


class BulletinRequest(Message):
    """What have you that I lack?

    Attributes:
        known: digests of the envelopes I have.
    """

    known: Annotated[tuple[DigestField, ...], Field(max_length=MAX_KNOWN)]


class BulletinExchange:
    """Makes our bulletin and others' alike.

    Attributes:
        bulletin: who registered.
        docket: who is accused.
        seats: of the run's validators.
    """

    def __init__(self, bulletin: Bulletin, docket: Docket, seats: int) -> None:
        self.bulletin = bulletin
        self.docket = docket
        self.seats = seats
        self._rng = bulletin.member.rng("bulletin exchange")

    async def serve(self) -> None:
        """Answer others from now on."""
        await self.bulletin.member.network.streams.serve(BULLETIN, self._answer)

    async def compare(self) -> None:
        """Ask a few peers for what we lack."""
        view = self.bulletin.member.view
        others = [peer_id for peer_id in view.live() if peer_id != self.bulletin.member.identity.peer_id]
        async with trio.open_nursery() as nursery:
            for peer_id in self._rng.sample(others, min(PARTNERS, len(others))):
                nursery.start_soon(self._ask, peer_id)

    def _envelopes(self) -> Mapping[Digest, bytes]:
        registrations = [one.envelope_bytes for one in self.bulletin.all_registrations()]
        certified = self.bulletin.certified
        results = [] if certified is None else [certified.envelope_bytes]  # last: registrations say whose quorum it is
        return {digest(envelope): envelope for envelope in (*registrations, *self.docket.accusations(), *results)}

    async def _answer(self, _: PeerId, request: Request) -> Response:
        known = set(BulletinRequest.from_fields(request.header).known)
        payload = bytearray()
        for name, envelope in self._envelopes().items():
            if name not in known:
                put(payload, envelope, BULLETIN.max_payload_bytes)
        return Response({}, bytes(payload))

    async def _ask(self, peer_id: PeerId) -> None:
        streams = self.bulletin.member.network.streams
        request = BulletinRequest(known=tuple(sorted(self._envelopes())[:MAX_KNOWN]))
        try:
            with trio.fail_after(PATIENCE_S):
                response = await streams.call(peer_id, BULLETIN, Request(request.to_fields()))
            with streams.ledger.charging(peer_id):
                for envelope in envelopes_in(bytes(response.payload)):
                    self._take(envelope)
        except (PeerUnavailableError, RefusedError, RemoteProtocolError, trio.TooSlowError) as error:
            _log.info("bulletin not compared", extra={"peer": peer_id, "reason": str(error) or "too slow"})

    def _take(self, envelope: bytes) -> None:
        """Take one envelope; raises RemoteProtocolError if it does not hold."""
        domain = domain_of(envelope)
        try:
            if domain == REGISTRATION:
                self.bulletin.hear_registration(envelope, open_recent(envelope, Registration).signer)
            elif domain == ACCUSATION:
                self.bulletin.hear_accusation(envelope, open_recent(envelope, Accusation).signer)
            elif domain == RESULT:
                self._take_certified(envelope)
            else:
                raise MalformedError("bulletin-kind", f"expected another kind of envelope, got a {domain.name}")
        except IgnoreError as error:  # it has expired, or its subject is a stranger here
            _log.debug("not taken from a bulletin", extra={"reason": str(error)})

    def _take_certified(self, envelope: bytes) -> None:
        """Take a result; who of the candidates was elected cannot be told without the seed: a quorum of them signed."""
        terms, epoch = self.bulletin.share.terms, self.bulletin.share.epoch
        result = open_message(
            envelope, EpochResult, run_id=terms.run_id, now_s=self.bulletin.member.clock(), opener=open_recent
        )
        voters = self.bulletin.electorate(result.payload.epoch, self.seats)
        if result.payload.epoch > epoch or not voters.is_quorum(result.signers):
            raise IgnoreError("bulletin-result", f"expected {voters.quorum} candidates to sign a result, got others")
        self.bulletin.take_certified(result)
