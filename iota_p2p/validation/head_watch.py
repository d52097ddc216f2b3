"""Tree heads: what each validator's log of records holds, signed after every record, and cosigned by who watches it.

A head that is longer than the last one we saw must continue it, by a proof that its owner gives on demand: request
`{"old": size, "new": size}`, response `{"proof": digests}`. Then we cosign it: whoever shows another history to
somebody else later has these signatures against it. Two heads that exclude each other are a proof by themselves.
"""

import logging
from dataclasses import dataclass, field
from functools import partial
from math import floor
from typing import Annotated

import trio
from pydantic import Field

from iota_p2p.ledger.ledger import Fact, Ledger
from iota_p2p.network.streams import Request, Response
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.domains import TREE_HEAD
from iota_p2p_crypto.envelope import Verified, merge_signatures, seal
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError, StaleError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.merkle import MAX_LEAVES, MAX_PROOF_DIGESTS
from iota_p2p_crypto.transparency_log import EquivocationError, LogView, TransparencyLog
from iota_p2p_crypto.tree_head import TreeHead, open_tree_head, sign_tree_head
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import HEADS, LOG
from iota_p2p_protocols.message import DigestField, Message
from iota_p2p_protocols.scoring.announcements import validate_head
from iota_p2p_protocols.scoring.equivocation import make_equivocation_proof
from iota_p2p_protocols.scoring.score_record import ScoreRecord

PATIENCE_S = 5.0  # for a proof of at most 2 KiB
# Heads whose proofs are under way: one of each validator of an epoch (`ScoringRules.seats`).
MAX_PENDING = 64

Size = Annotated[int, Field(ge=1, le=MAX_LEAVES)]

_log = logging.getLogger(__name__)


class ConsistencyRequest(Message):
    """Show that your log of one size continues that of another.

    Attributes:
        old, new: the sizes.
    """

    old: Size
    new: Size


class ConsistencyAnswer(Message):
    """How it does.

    Attributes:
        proof: as in RFC 6962, 2.1.2.
    """

    proof: Annotated[tuple[DigestField, ...], Field(max_length=MAX_PROOF_DIGESTS)]


@dataclass(slots=True)
class HeadWatch:
    """Publishes our heads, and watches others'.

    Attributes:
        bulletin: how heads are said and heard; logs of those who never registered are not watched.
        ledger: our own records.
        cosigns: whether we sign others' heads.
    """

    bulletin: Bulletin
    ledger: Ledger
    cosigns: bool
    _views: dict[PeerId, LogView] = field(default_factory=dict)  # at most as many as there are candidates
    _newest: dict[PeerId, Verified[TreeHead]] = field(default_factory=dict)  # with all cosignatures so far
    _num_pending: int = 0

    async def serve(self) -> None:
        """Prove from now on that our log continues itself."""
        await self.bulletin.member.network.streams.serve(LOG, self._answer)

    async def run(self) -> None:
        """Watch until cancelled."""
        gossip = self.bulletin.member.network.gossip
        check = partial(validate_head, run_id=self.bulletin.share.terms.run_id)
        async with gossip.subscribe(HEADS, check) as heard, trio.open_nursery() as nursery:
            async for head in heard:
                if head.payload.log_id in self.bulletin.registrations and self._num_pending < MAX_PENDING:
                    self._num_pending += 1
                    nursery.start_soon(self._take, head)

    async def publish(self, epoch: int) -> None:
        """Sign the head of our log as it is after the record of an epoch, once, and tell everybody."""
        member, log = self.bulletin.member, self._own_log()
        head = log.head(floor(member.clock()))
        sign = partial(sign_tree_head, head, member.identity)
        envelope = self.ledger.sign_once(TREE_HEAD.name, epoch, sign)
        self._newest[member.identity.peer_id] = open_tree_head(envelope, head.run_id)
        await self.bulletin.pass_on(HEADS, envelope)

    def keep(self, epoch: int) -> None:
        """Put the newest head of every log into the ledger, with the cosignatures that came until now."""
        for log_id, head in self._newest.items():
            self.bulletin.on_fact(Fact(TREE_HEAD.name, epoch, log_id, head.envelope_bytes))
        self._newest.clear()

    def _own_log(self) -> TransparencyLog:
        entries = [entry.envelope for entry in self.ledger.own_log(ScoreRecord.domain.name)]
        return TransparencyLog(self.bulletin.share.terms.run_id, self.bulletin.member.identity.peer_id, entries)

    async def _answer(self, _: PeerId, request: Request) -> Response:
        wanted, log = ConsistencyRequest.from_fields(request.header), self._own_log()
        if not wanted.old <= wanted.new <= len(log):
            raise RefusedError("unknown-size", f"expected sizes up to {len(log)}, got {wanted.old} and {wanted.new}")
        return Response(ConsistencyAnswer(proof=log.prove_consistency(wanted.old, wanted.new)).to_fields())

    async def _take(self, head: Verified[TreeHead]) -> None:
        owner = head.payload.log_id
        if owner == self.bulletin.member.identity.peer_id:  # what others have signed of ours
            self._num_pending -= 1
            self._join(head)
            return
        view = self._views.setdefault(owner, LogView(head.payload.run_id, owner))
        try:
            is_news = head.payload.size > view.size
            proof = await self._proof(owner, view.size, head.payload.size) if is_news and view.size else ()
            with self.bulletin.member.network.ledger.charging(owner):
                view.accept(head, proof)
        except EquivocationError as error:
            proof_of_two = make_equivocation_proof(error.first.envelope_bytes, error.second.envelope_bytes)
            self.bulletin.on_equivocation(proof_of_two)
            return
        except (StaleError, PeerUnavailableError, RemoteProtocolError) as error:
            _log.info("tree head not taken", extra={"peer": owner, "reason": str(error)})
            return
        finally:
            self._num_pending -= 1
        self._join(head)
        if is_news and self.cosigns:
            await self._cosign(head)

    async def _proof(self, owner: PeerId, old: int, new: int) -> tuple[Digest, ...]:
        request = ConsistencyRequest(old=old, new=new)
        streams = self.bulletin.member.network.streams
        try:
            with trio.fail_after(PATIENCE_S):
                response = await streams.call(owner, LOG, Request(request.to_fields()))
        except (RefusedError, trio.TooSlowError) as error:
            raise PeerUnavailableError(f"expected {owner} to show that its log goes on: {error}") from error
        with streams.ledger.charging(owner):
            return tuple(map(Digest, ConsistencyAnswer.from_fields(response.header).proof))

    async def _cosign(self, head: Verified[TreeHead]) -> None:
        ours = seal(TREE_HEAD, head.payload.to_fields(), (self.bulletin.member.identity,))
        if len(head.signers) < TREE_HEAD.max_signatures:
            envelope = merge_signatures((head.envelope_bytes, ours))
            self._join(open_tree_head(envelope, head.payload.run_id))
            await self.bulletin.pass_on(HEADS, envelope)

    def _join(self, head: Verified[TreeHead]) -> None:
        """Keep a head, or the signatures on it that we lack."""
        known = self._newest.get(head.payload.log_id)
        if known is None or known.payload.size < head.payload.size:
            self._newest[head.payload.log_id] = head
        elif known.payload_bytes == head.payload_bytes and not set(head.signers) <= set(known.signers):
            together = set(known.signers) | set(head.signers)
            if len(together) <= TREE_HEAD.max_signatures:
                envelope = merge_signatures((known.envelope_bytes, head.envelope_bytes))
                self._newest[head.payload.log_id] = open_tree_head(envelope, head.payload.run_id)
