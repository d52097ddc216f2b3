"""Whether the gradients that a peer sent back are those that its work comes to.

Gradients are in no record: each goes to one caller, with a receipt that nobody else gets. So the callers are asked for
the receipts of a segment's backwards. A caller cannot forge one, and one that shows none only leaves that microbatch
uncompared; a receipt names the loss record of its attempt, so none can be passed off as another's.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import trio

from iota_p2p.model.compute import StageCompute
from iota_p2p.training.work_share import WorkShare
from iota_p2p.validation.likeness import likeness_of_payloads
from iota_p2p.validation.replay_exchange import ReplaySource
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.receipt import Receipt, check_receipt, open_receipt
from iota_p2p_protocols.scoring.replay_verdict import Owed, Returned
from iota_p2p_protocols.scoring.segments import Segment
from iota_p2p_protocols.work_log import Backward, WorkLog

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class GradientReplay:
    """The gradients of one segment of a peer's log.

    Attributes:
        share: the run, its data and our device.
        source: the peer in question.
        log: its log.
        segment: what of it is done again.
        judged: the backwards in question, by position.
    """

    share: WorkShare
    source: ReplaySource
    log: WorkLog
    segment: Segment
    judged: Mapping[int, Owed]
    _receipts: dict[int, Receipt] = field(default_factory=dict)
    _returned: dict[int, Returned] = field(default_factory=dict)
    _differing: dict[int, bytes] = field(default_factory=dict)  # what came out instead of what was sent

    @property
    def returned(self) -> tuple[Returned, ...]:
        """What could be compared."""
        return tuple(self._returned.values())

    async def ask(self) -> None:
        """Ask the callers what the peer signed of its gradients."""
        callers: dict[PeerId, dict[bytes, int]] = {}
        for position, owed in self.judged.items():
            if owed.caller is not None:
                callers.setdefault(owed.caller, {})[owed.record] = position
        async with trio.open_nursery() as nursery:
            for caller, wanted in callers.items():
                nursery.start_soon(self._ask, caller, wanted)

    def note(self, position: int, gradient: bytes) -> None:
        """Note what a backward came to."""
        receipt, entry = self._receipts.get(position), self.log.entries[position]
        if receipt is None or not isinstance(entry, Backward):
            return
        crosses = entry.forward < self.segment.first
        found = Returned(entry.in_digest, digest(gradient), receipt.in_digest, receipt.out_digest, crosses)
        self._returned[position] = found
        if found.signed_out != found.out_digest:
            self._differing[position] = gradient

    async def compare(self, compute: StageCompute) -> None:
        """Compare gradients that differ with what the peer sent; one that it has no more is like nothing."""
        names = [self._returned[position].signed_out for position in self._differing]
        sent = await self.source.payloads(names, self.share.terms.gradient_bytes)
        boundary = compute.stage.boundary
        for position, ours in self._differing.items():
            one = self._returned[position]
            if one.signed_out in sent:
                tokens_BT = torch.from_numpy(self.share.data.training_window(self.judged[position].microbatch))[:, :-1]
                shape, theirs = boundary.message_shape(tokens_BT), sent[one.signed_out]
                compare = partial(likeness_of_payloads, boundary.backward_code, shape, ours, theirs)
                self._returned[position] = replace(one, likeness=await self.share.lane.beside(compare))

    async def _ask(self, caller: PeerId, wanted: Mapping[bytes, int]) -> None:
        """Take the receipts that one caller shows; nobody answers for another's silence."""
        try:
            envelopes = await self._shown_by(caller, tuple(wanted))
            with self.source.streams.ledger.charging(caller):
                receipts = await self.share.lane.beside(partial(self._opened, envelopes))
        except (PeerUnavailableError, RemoteProtocolError) as error:
            _log.info("gradients not compared", extra={"peer": self.source.peer_id, "reason": str(error)})
            return
        self._receipts.update({wanted[record]: receipt for record, receipt in receipts.items()})

    async def _shown_by(self, caller: PeerId, records: tuple[bytes, ...]) -> Mapping[bytes, bytes]:
        epoch, stage = self.source.epoch, self.source.stage
        if caller == self.share.identity.peer_id:
            shown = {record: self.share.returns.get(epoch, stage, record) for record in records}
            return {record: envelope for record, envelope in shown.items() if envelope is not None}
        return await ReplaySource(self.source.streams, caller, epoch, stage).receipts(records)

    def _opened(self, envelopes: Mapping[bytes, bytes]) -> dict[bytes, Receipt]:
        """Open what a caller showed; raises RemoteProtocolError if it is not the receipt asked for."""
        receipts = {}
        for record, envelope in envelopes.items():
            receipt = open_receipt(envelope)
            receipts[record] = receipt.payload
            check_receipt(
                receipt,
                self.source.peer_id,
                subject=record,
                stage=self.source.stage,
                direction="backward",
                out_digest=receipt.payload.out_digest,
            )
        return receipts
