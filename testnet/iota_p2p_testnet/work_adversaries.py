"""Peers that do not do the work they answer for, by name: honest in everything but one thing.

member = await swarm.start(3, twist=work_twist("lazy"))
iota-p2p testnet --adversary lazy=2
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from iota_p2p.model.compute import StageCompute
from iota_p2p.peer import Peer
from iota_p2p.training.held_stage import HeldStage, Passed
from iota_p2p.training.trainer import Trainer
from iota_p2p_protocols.chain import StageInput
from iota_p2p_testnet.training_swarm import Twist

UNDERSTATED = 0.9  # what a lying tail makes of its losses: a harm of a tenth goes unseen behind it


class LazyStage(HeldStage):
    """Never goes backward: answers gradients of zero, learns nothing, and says so in its log."""

    def backward(self, passed: Passed, gradient: bytes | None, in_digest: bytes) -> bytes | None:
        """See `HeldStage.backward`."""
        del gradient, in_digest
        received = passed.held.input_BTK
        if received is None:
            return None
        return self.compute.stage.boundary.backward_code.encode(torch.zeros_like(received))


class RandomStage(HeldStage):
    """Sends noise, and goes back through what it should have sent."""

    def forward(self, work: StageInput, payload: bytes | None) -> Passed:
        """See `HeldStage.forward`."""
        passed = super().forward(work, payload)
        if passed.held.payload is None:
            return passed
        noise = self.compute.stage.boundary.forward_code.encode(torch.randn_like(passed.held.output))
        return replace(passed, held=replace(passed.held, payload=noise))


class StaleStage(HeldStage):
    """Answers with the weights it had when it took the stage, while it trains others."""

    _old: StageCompute | None = None

    def start_epoch(self, epoch: int) -> None:
        """See `HeldStage.start_epoch`."""
        super().start_epoch(epoch)
        if self._old is None:
            self._old = StageCompute(self.spec, self.index, seed=self.spec.seed)
            self._old.restore(self.compute.checkpoint())

    def forward(self, work: StageInput, payload: bytes | None) -> Passed:
        """See `HeldStage.forward`."""
        passed = super().forward(work, payload)
        assert self._old is not None  # noqa: S101 - no work comes before the first epoch
        old = self._old.evaluate(passed.held.window_BT1, payload)
        return replace(passed, held=replace(passed.held, payload=old.payload, loss=old.loss))


class LyingTail(HeldStage):
    """Signs lower losses than it finds; honest in every stage but the last."""

    def forward(self, work: StageInput, payload: bytes | None) -> Passed:
        """See `HeldStage.forward`."""
        passed = super().forward(work, payload)
        if passed.held.loss is None:
            return passed
        return replace(passed, held=replace(passed.held, loss=UNDERSTATED * passed.held.loss))


WORK_KINDS: Mapping[str, type[HeldStage]] = {
    "lazy": LazyStage,
    "lying-tail": LyingTail,
    "random-output": RandomStage,
    "stale": StaleStage,
}


def work_twist(name: str) -> Twist:
    """Return what makes a peer cheat in its work."""

    async def twist(_: Peer, trainer: Trainer) -> None:
        trainer.keeper.kind = WORK_KINDS[name]

    return twist
