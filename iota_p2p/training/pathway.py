"""The pathway: calling a replica of the next stage, and the next replica if that one cannot.

The caller keeps its activation until the gradient is back, so whatever happens behind it, nothing is lost: a replica
that dies, lies, declines or is too slow is passed over in the order that was drawn. When all have been tried, the
round begins anew after a pause, for as long as the caller's own caller has patience.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p.run.data import epoch_seed
from iota_p2p.training.standing import Standing
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.activation import (
    ActivationRequest,
    ActivationResponse,
    Answered,
    Sent,
    build_request,
    receive_response,
)
from iota_p2p_protocols.chain import StageInput
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import ACTIVATION
from iota_p2p_protocols.loss_record import LossRecord
from iota_p2p_protocols.microbatch import live_epochs
from iota_p2p_protocols.patience import FLOOR_S, Patience
from iota_p2p_protocols.refusal import check_refusal, open_refusal
from iota_p2p_protocols.routing import draw_order

# Pauses between rounds over all replicas: a busy stage frees a slot every few milliseconds, an empty one takes
# seconds to be filled.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 1.0
_log = logging.getLogger(__name__)

LocalCall = Callable[[PeerId, Request], Awaitable[Response]]


class DeclinedError(Exception):
    """A replica declined with a signed refusal; the caller goes on to the next."""


@dataclass(slots=True)
class Pathway:
    """Calls the next stage.

    Attributes:
        share: what we hold, and who holds the rest.
        streams: how others are called.
        rng: for jitter in pauses.
        offence: told of every peer that broke a rule.
        local: answers calls to ourselves, when we hold the next stage too; set by whoever builds both.
    """

    share: WorkShare
    streams: Streams
    rng: Random
    offence: Callable[[PeerId, RemoteProtocolError], None]
    local: LocalCall | None = None
    _patience: dict[int, Patience] = field(default_factory=dict)
    _standing: Standing = field(default_factory=Standing)

    async def call_next(
        self, work: StageInput, payload: bytes, check_gradient: Callable[[bytes], None]
    ) -> tuple[bytes, Verified[LossRecord]]:
        """Send our activation to the next stage; return the gradient and the loss record.

        `check_gradient` raises MalformedError for a gradient that cannot be used; it is then had elsewhere.

        Goes on until an answer was checked; the caller's own caller has its own patience and cancels.

        Raises:
            PeerUnavailableError: once the microbatch's epoch is over, because nobody takes it any more.
        """
        sent = build_request(work, payload, self.share.identity)
        stage = sent.header.stage
        self.share.payloads.add(self.share.epoch, payload)
        pause_s = FIRST_PAUSE_S
        while work.microbatch.epoch in live_epochs(self.share.epoch):
            for callee in self._order(work, stage):
                answer = await self._try(callee, sent, payload, check_gradient)
                if answer is not None:
                    return answer
                self.share.counts.retried += 1
            self.share.waiting_for = f"a replica of stage {stage}"
            await trio.sleep(pause_s * self.rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
        raise PeerUnavailableError(f"epoch {work.microbatch.epoch} closed before stage {stage} could take it")

    def _order(self, work: StageInput, stage: int) -> Sequence[PeerId]:
        seed = epoch_seed(self.share.terms.run_id, work.microbatch.epoch)
        return self._standing.order(draw_order(seed, work.digest, stage, self.share.routes.replicas(stage)).order)

    async def _try(
        self,
        callee: PeerId,
        sent: Sent,
        payload: bytes,
        check_gradient: Callable[[bytes], None],
    ) -> tuple[bytes, Verified[LossRecord]] | None:
        """Call one replica; None if it was to no avail, for whatever reason."""
        stage = sent.header.stage
        start_s = trio.current_time()
        response = await self._reach(callee, sent.header, payload)
        if response is None:
            return None
        try:
            gradient = bytes(response.payload)
            answered = self._check(response, gradient, callee, sent)
            check_gradient(gradient)
        except DeclinedError as error:
            _log.debug("declined", extra={"stage": stage, "peer": callee, "reason": str(error)})
            return None
        except RemoteProtocolError as error:
            self._standing.broke_rule(callee)
            self.offence(callee, error)
            return None
        self._patience[stage].record(trio.current_time() - start_s)
        self.share.waiting_for = ""
        self.share.payloads.add(self.share.epoch, gradient)
        self.share.returns.add(sent.header.microbatch.epoch, stage, answered)
        return gradient, answered.record

    async def _reach(self, callee: PeerId, request: ActivationRequest, payload: bytes) -> Response | None:
        """Return what a replica answered, or None if it did not, or not in time."""
        patience = self._patience_with(request.stage)
        start_s = trio.current_time()
        self._standing.calling(callee)
        answered = False
        try:
            with trio.fail_after(patience.timeout_s()):
                response = await self._call(callee, request, payload)
            answered = True
        except RefusedError as error:
            answered = True
            _log.debug("refused", extra={"stage": request.stage, "peer": callee, "reason": str(error)})
            return None
        except trio.TooSlowError:
            patience.record(trio.current_time() - start_s)
            return None
        except PeerUnavailableError as error:
            _log.debug("not reached", extra={"stage": request.stage, "peer": callee, "reason": str(error)})
            return None
        except RemoteProtocolError:  # it has been charged
            self._standing.broke_rule(callee)
            return None
        else:
            return response
        finally:
            # Also when our own caller ran out of patience first, most likely because of this callee: else it would
            # be the first choice of the next attempt, too, and of all that follow.
            (self._standing.answered if answered else self._standing.failed)(callee)

    def _patience_with(self, stage: int) -> Patience:
        # The callee waits for the stages behind it in the same way: had we no more patience than it, we would give up
        # just when it does, and it could never try another replica.
        behind = self.share.terms.num_stages - 1 - stage
        return self._patience.setdefault(stage, Patience(floor_s=FLOOR_S * (1 + behind)))

    async def _call(self, callee: PeerId, request: ActivationRequest, payload: bytes) -> Response:
        sent = Request(request.to_fields(), payload)
        if callee == self.share.identity.peer_id:
            assert self.local is not None  # noqa: S101 - set when the peer was put together
            return await self.local(callee, sent)
        self.share.counts.activation_bytes += len(payload)
        return await self.streams.call(callee, ACTIVATION, sent)

    def _check(self, response: Response, gradient: bytes, callee: PeerId, sent: Sent) -> Answered:
        header = ActivationResponse.from_fields(response.header)
        if header.refusal:
            refusal = open_refusal(header.refusal)
            check_refusal(refusal, callee, sent.chain[-1].payload.subject, sent.header.stage)
            raise DeclinedError(refusal.payload.reason)
        return receive_response(header, gradient, callee, sent=sent, terms=self.share.terms)
