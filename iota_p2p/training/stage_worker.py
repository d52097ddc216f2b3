"""The stage worker: takes microbatches for the stages we hold, and answers when their gradients are back.

One microbatch is one nested call. While it is open it holds one of its stage's slots; slots are counted per stage,
so that waits only ever point down the pipeline and a peer that holds two stages cannot block itself.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from functools import partial
from math import floor

from iota_p2p.model.boundary.codes import DivergedError
from iota_p2p.network.streams import Request, Response
from iota_p2p.training.held_stage import Passed
from iota_p2p.training.lane import Priority
from iota_p2p.training.pathway import Pathway
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.activation import (
    ActivationRequest,
    ActivationResponse,
    SeenReceipts,
    build_response,
    receive_request,
)
from iota_p2p_protocols.chain import StageInput
from iota_p2p_protocols.loss_record import Loss, LossRecord, loss_micronats, sign_loss_record
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.refusal import MAX_QUEUE_LENGTH, Reason, Refusal, reason_to_refuse, seal_refusal

# Microbatches under way on one stage: enough to keep the lane busy while gradients come back through up to eight
# stages, few enough that their graphs fit. One more is refused as `busy` and finds another replica.
SLOTS_PER_STAGE = 8
# Answers kept for callers that did not get them: they ask again within a few timeouts, when a stage has answered
# some rounds of its slots since. Their gradients are those of the payload store, so they cost nothing more.
ANSWERS_KEPT = 8 * SLOTS_PER_STAGE
# A merge takes a fraction of this when all goes well. Longer than that a stage takes nothing new, so that callers go to
# a replica that is done with its merge.
LONGEST_PAUSE_S = 1.0

_Call = tuple[Digest, int, PeerId]  # microbatch, stage, caller


@dataclass(frozen=True, slots=True)
class _Answer:
    """What we answered, and to what: the loss record in it holds this very chain."""

    chain: tuple[bytes, ...]
    in_digest: Digest
    response: Response


@dataclass(frozen=True, slots=True)
class Worked:
    """What came of a microbatch.

    Attributes:
        gradient: for the stage before; None at stage 0.
        header: what we sign of it.
        loss_micronats: by the last stage's record.
    """

    gradient: bytes | None
    header: ActivationResponse
    loss_micronats: int


@dataclass(slots=True)
class StageWorker:
    """Serves the stages of a work share.

    Attributes:
        share: what we hold.
        pathway: how we call the next stage.
    """

    share: WorkShare
    pathway: Pathway
    _seen: SeenReceipts = field(default_factory=SeenReceipts)
    _under_way: Counter[int] = field(default_factory=Counter)
    _open: set[_Call] = field(default_factory=set)
    _answers: OrderedDict[_Call, _Answer] = field(default_factory=OrderedDict)

    @property
    def under_way(self) -> int:
        """Microbatches we have not answered yet."""
        return self._under_way.total()

    def under_way_on(self, stage: int) -> int:
        """Microbatches of one stage that we have not answered yet."""
        return self._under_way[stage]

    def takes(self, stage: int) -> bool:
        """Return whether we start microbatches on a stage: we hold it, stay with it, and it has room and time."""
        held = self.share.stages.get(stage)
        if held is None or self.share.draining or stage in self.share.leaving:
            return False
        return held.gate.shut_for_s < LONGEST_PAUSE_S and held.has_room(self._under_way[stage])

    async def answer(self, caller: PeerId, request: Request) -> Response:
        """Answer one call; raises RemoteProtocolError if the caller broke a rule.

        A caller that asks again because our answer did not reach it gets the same one, and nothing is done twice.
        """
        header = ActivationRequest.from_fields(request.header)
        payload = bytes(request.payload)
        call = (header.microbatch.digest(self.share.terms.run_id), header.stage, caller)
        kept = self._answers.get(call)
        if kept is not None and kept.chain == header.chain and kept.in_digest == digest(payload):
            return self._counted(caller, kept.response)
        # The attempt before may still be on its way out when its caller's next one comes in.
        reason = "busy" if call in self._open else self._reason_to_refuse(header.microbatch, header.stage)
        if reason is not None:
            return self._refuse(header, reason)
        self.share.data.check_counter(header.microbatch)
        work = receive_request(header, payload, caller, self.share.terms, self._seen)
        self.share.payloads.add(self.share.epoch, payload)
        self._open.add(call)
        answered = False
        try:
            worked = await self.work_on(work, payload)
            gradient = worked.gradient
            assert gradient is not None  # noqa: S101 - only stage 0 has nothing to send back, and nobody calls it
            self.share.payloads.add(self.share.epoch, gradient)
            answered = True
            response = Response(worked.header.to_fields(), gradient)
            self._keep(call, _Answer(header.chain, work.in_digest, response))
            return self._counted(caller, response)
        except DivergedError:
            return self._refuse(header, "no-loss")
        finally:
            self._open.remove(call)
            if not answered:
                self._seen.forget(work.chain)  # it came to nothing: asking again is no replay

    def _counted(self, caller: PeerId, response: Response) -> Response:
        if caller != self.share.identity.peer_id:  # what we answer ourselves does not travel
            self.share.counts.gradient_bytes += len(response.payload)
        return response

    def _keep(self, call: _Call, answer: _Answer) -> None:
        self._answers[call] = answer
        if len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)

    async def work_on(self, work: StageInput, payload: bytes | None) -> Worked:
        """Run a microbatch through our stage and everything behind it; return what came of it.

        Cancelling it drops the microbatch here; the peers behind notice by themselves.

        Raises:
            PeerUnavailableError: if nobody behind us could take it in time.
            MalformedError, DivergedError: if the payload or the numbers are no good.
        """
        stage = self.share.stages[work.stage]
        # Two sources' microbatches of one number may wait at the same moment, when a merge is done.
        tie = int.from_bytes(work.digest[:8], "big")
        order = (work.microbatch.epoch, work.microbatch.data_counter, work.stage, tie)
        self._under_way[work.stage] += 1
        try:
            async with stage.gate.passing():
                passed = await self.share.lane.run(Priority.FORWARD, partial(stage.forward, work, payload), order)
            if stage.compute.stage.is_last:
                gradient_in, record = None, self._loss_record(passed)
                in_digest = record.digest
            else:
                assert passed.held.payload is not None  # noqa: S101 - every stage but the last sends one
                check = partial(stage.check_gradient, passed)
                gradient_in, record = await self.pathway.call_next(work, passed.held.payload, check)
                in_digest = digest(gradient_in)
            go_back = partial(stage.backward, passed, gradient_in, in_digest)
            async with stage.gate.passing():
                gradient = await self.share.lane.run(Priority.BACKWARD, go_back, order)
            for name in (work.in_digest, in_digest):
                self.share.payloads.keep(stage.epoch, name)  # the epoch may have turned since they came
            # Only now: had our caller given up and asked again meanwhile, we would have signed two losses of one chain.
            if stage.compute.stage.is_last:
                self.share.witness(record, "tail")
            if work.stage == 0:
                self.share.witness(record, "source")
            header = build_response(work, in_digest, gradient or b"", record, self.share.identity)
            return Worked(gradient, header, record.payload.loss_micronats)
        finally:
            self._under_way[work.stage] -= 1

    def _reason_to_refuse(self, microbatch: MicrobatchId, stage: int) -> Reason | None:
        return reason_to_refuse(
            microbatch,
            stage,
            epoch=self.share.epoch,
            held=self.share.stages,
            draining=not self.takes(stage),
            free_slots=SLOTS_PER_STAGE - self._under_way[stage],
        )

    def _refuse(self, header: ActivationRequest, reason: Reason) -> Response:
        refusal = Refusal(
            microbatch=header.microbatch.digest(self.share.terms.run_id),
            stage=header.stage,
            reason=reason,
            queue_length=min(self.share.lane.queue_length, MAX_QUEUE_LENGTH),
        )
        return Response(ActivationResponse(refusal=seal_refusal(refusal, self.share.identity)).to_fields())

    def _loss_record(self, passed: Passed) -> Verified[LossRecord]:
        assert passed.held.loss is not None  # noqa: S101 - the last stage's forward has one
        loss = loss_micronats(passed.held.loss)
        if loss is None:
            raise DivergedError(f"expected a loss a record can state, got {passed.held.loss} nats")
        return sign_loss_record(
            passed.work,
            Loss(loss, self.share.tokens_per_microbatch, floor(self.share.clock() * 1000)),
            run_id=self.share.terms.run_id,
            signer=self.share.identity,
        )
