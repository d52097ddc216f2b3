"""Forward passes through the network for the held-out loss and for text; see `iota_p2p_protocols.inference`.

They run on the lane's lowest priority, so that they take only what training leaves over.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

import torch
import trio

from iota_p2p.model.boundary.codes import DivergedError
from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p.training.lane import Priority
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import INFERENCE
from iota_p2p_protocols.inference import (
    HeldoutRequest,
    InferenceResponse,
    PromptRequest,
    check_response,
    pack_tokens,
    parse_request,
    unpack_tokens,
)
from iota_p2p_protocols.loss_record import MICRONATS_PER_NAT, loss_micronats

# One replica has this long for everything behind it; training goes first everywhere, so it is generous.
CALL_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Inference:
    """Serves and starts forward passes.

    Attributes:
        share: the stages we hold.
        streams: how the next stage is called.
        rng: which replica; nobody audits these.
        offence: told of every peer whose answer broke a rule.
    """

    share: WorkShare
    streams: Streams
    rng: Random
    offence: Callable[[PeerId, RemoteProtocolError], None]

    async def serve(self) -> None:
        """Answer others from now on."""
        await self.streams.serve(INFERENCE, self._answer)

    async def heldout_loss(self, index: int) -> float:
        """Return the loss, in nats per token, on a batch of held-out text.

        Raises:
            PeerUnavailableError: if some stage cannot be reached now.
        """
        response = await self._ask(HeldoutRequest(heldout=index, stage=0), b"")
        return InferenceResponse.from_fields(response.header).loss_micronats / MICRONATS_PER_NAT

    async def next_logits(self, tokens: list[int]) -> torch.Tensor:
        """Return the logits, V, of the token after `tokens`; raises PeerUnavailableError as `heldout_loss`."""
        response = await self._ask(PromptRequest(tokens=pack_tokens(tokens), stage=0), b"")
        return torch.frombuffer(bytearray(response.payload), dtype=torch.float32)

    async def _answer(self, caller: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may ask
        payload = bytes(request.payload)
        return await self._work_on(parse_request(request.header, payload), payload)

    async def _work_on(self, header: HeldoutRequest | PromptRequest, payload: bytes) -> Response:
        stage = self.share.stages.get(header.stage)
        if stage is None:
            raise RefusedError("no-such-stage", f"expected a stage we hold, got {header.stage}")
        window_BT1 = self._window(header)
        run = partial(stage.evaluate, window_BT1, payload or None, logits=isinstance(header, PromptRequest))
        try:
            result = await self.share.lane.run(Priority.BACKGROUND, run)
        except DivergedError as error:
            raise RefusedError("no-loss", str(error)) from error
        if isinstance(result, bytes):
            return await self._ask(header.model_copy(update={"stage": header.stage + 1}), result)
        if isinstance(result, torch.Tensor):
            if not bool(result.isfinite().all()):
                raise RefusedError("no-loss", "expected finite logits, got some that are not")
            return Response(InferenceResponse(kind="logits").to_fields(), result.float().cpu().numpy().tobytes())
        loss = loss_micronats(result)
        if loss is None:
            raise RefusedError("no-loss", f"expected a loss that can be stated, got {result}")
        return Response(InferenceResponse(kind="loss", loss_micronats=loss).to_fields())

    async def _ask(self, header: HeldoutRequest | PromptRequest, payload: bytes) -> Response:
        """Ask the replicas of a stage in random order until one answers; the answer has been checked.

        Everybody on the way back checks it, so that nobody is blamed for what was passed on.
        """
        replicas = sorted(self.share.routes.replicas(header.stage))
        self.rng.shuffle(replicas)
        for callee in replicas:
            try:
                with trio.fail_after(CALL_TIMEOUT_S):
                    if callee == self.share.identity.peer_id:
                        return await self._work_on(header, payload)
                    response = await self.streams.call(callee, INFERENCE, Request(header.to_fields(), payload))
            except (trio.TooSlowError, PeerUnavailableError, RefusedError, RemoteProtocolError) as error:
                _log.debug("inference failed", extra={"stage": header.stage, "peer": callee, "reason": str(error)})
                continue
            try:
                vocab_size = self.share.spec.model.vocab_size
                check_response(header, response.header, bytes(response.payload), vocab_size)
            except RemoteProtocolError as error:
                self.offence(callee, error)
                continue
            return response
        raise PeerUnavailableError(f"none of {len(replicas)} replicas of stage {header.stage} answered")

    def _window(self, header: HeldoutRequest | PromptRequest) -> torch.Tensor:
        """Return the tokens, B x (T+1); a prompt's last one is a label that nobody looks at."""
        if isinstance(header, HeldoutRequest):
            return torch.from_numpy(self.share.data.heldout_window(header.heldout))
        model = self.share.spec.model
        tokens = unpack_tokens(header.tokens, vocab_size=model.vocab_size, sequence_length=model.sequence_length)
        return torch.tensor([[*tokens, 0]])
