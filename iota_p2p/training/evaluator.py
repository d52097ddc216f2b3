"""The held-out loss: one peer of the network measures it now and then and says so.

Everybody holding stage 0 could; the one with the lowest id among the live ones does, so that it costs the network a
forward pass every few seconds, and not one per peer.
"""

import logging
from dataclasses import dataclass

import trio

from iota_p2p.training.inference import Inference
from iota_p2p.training.work_share import WorkShare
from iota_p2p_protocols.errors import PeerUnavailableError

EVALUATE_EVERY_S = 10.0
NUM_BATCHES = 4  # the same ones every time, so that the figures can be compared; 4,096 tokens in the tiny run

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Evaluator:
    """Measures the held-out loss while it is our turn.

    Attributes:
        share: what we hold.
        inference: passes through the network.
        loss_nats: the last figure, nats per token; None if it is not our turn or none has come yet.
    """

    share: WorkShare
    inference: Inference
    loss_nats: float | None = None

    async def run(self) -> None:
        """Evaluate until cancelled."""
        while True:
            if not self._our_turn:
                self.loss_nats = None
                await trio.sleep(1)
                continue
            try:
                self.loss_nats = await self.measure()
            except PeerUnavailableError as error:
                _log.debug("no held-out loss", extra={"reason": str(error)})
            await trio.sleep(EVALUATE_EVERY_S)

    async def measure(self) -> float:
        """Return the mean loss over NUM_BATCHES batches; raises PeerUnavailableError if a stage cannot be reached."""
        losses = [await self.inference.heldout_loss(index) for index in range(NUM_BATCHES)]
        return sum(losses) / len(losses)

    @property
    def _our_turn(self) -> bool:
        holders = self.share.routes.replicas(0)
        return bool(holders) and min(holders) == self.share.identity.peer_id
