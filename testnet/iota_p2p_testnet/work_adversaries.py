"""Peers that do not do the work they answer for, by name: honest in everything but one thing.

member = await swarm.start(3, twist=work_twist("lazy"))
iota-p2p testnet --adversary lazy=2
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from iota_p2p.merge.outer_step import OuterState, Vector
from iota_p2p.model.compute import Held, StageCompute
from iota_p2p.model.state import set_vector, vector_of
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


class PoisoningStage(HeldStage):
    """Sends back the opposite of the gradient it computes, and learns from the right one itself."""

    def backward(self, passed: Passed, gradient: bytes | None, in_digest: bytes) -> bytes | None:
        """See `HeldStage.backward`."""
        back = super().backward(passed, gradient, in_digest)
        if back is None:
            return None
        boundary = self.compute.stage.boundary
        shape = boundary.message_shape(passed.held.window_BT1[:, :-1])
        return boundary.backward_code.encode(-boundary.backward_code.decode(back, shape))


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


class CopyingStage(HeldStage):
    """Computes nothing: passes on what others sent it, forward and back, and takes no step."""

    _first: Held | None = None

    def forward(self, work: StageInput, payload: bytes | None) -> Passed:
        """See `HeldStage.forward`; stage 0, to which nobody sends, says again and again what it said first."""
        if self._first is None:
            self._first = super().forward(work, payload).held
        sent = self._first.payload if payload is None else payload
        held = replace(self._first, payload=None if self._first.payload is None else sent, received=payload)
        return Passed(work, self.log, self._log_forward(work), held)

    def backward(self, passed: Passed, gradient: bytes | None, in_digest: bytes) -> bytes | None:
        """See `HeldStage.backward`; the last stage, which nobody sends gradients, returns what it was sent."""
        del in_digest
        return passed.held.received if gradient is None else gradient


class ColludingStage(HeldStage):
    """Sends the opposite of what it computes, as all who collude with it do."""

    def forward(self, work: StageInput, payload: bytes | None) -> Passed:
        """See `HeldStage.forward`."""
        passed = super().forward(work, payload)
        if passed.held.payload is None:
            return passed
        harm = self.compute.stage.boundary.forward_code.encode(-passed.held.output.detach())
        return replace(passed, held=replace(passed.held, payload=harm))


class UnmergedStage(HeldStage):
    """Signs what a merge came to, and goes on with its own weights."""

    _own: Vector | None = None

    def install(self, state: OuterState, epoch: int) -> None:
        """See `HeldStage.install`."""
        self._own = vector_of(self.compute.stage)
        super().install(state, epoch)
        self._own = None

    def start_epoch(self, epoch: int) -> None:
        """See `HeldStage.start_epoch`."""
        if self._own is not None:
            set_vector(self.compute.stage, self._own)
        super().start_epoch(epoch)


WORK_KINDS: Mapping[str, type[HeldStage]] = {
    "colluding-stage": ColludingStage,
    "copying": CopyingStage,
    "lazy": LazyStage,
    "lying-tail": LyingTail,
    "poisoned-gradient": PoisoningStage,
    "random-output": RandomStage,
    "stale": StaleStage,
    "unmerged": UnmergedStage,
}


def work_twist(name: str) -> Twist:
    """Return what makes a peer cheat in its work, and take a stage where it can, unless it is pinned to another."""

    async def twist(_: Peer, trainer: Trainer) -> None:
        keeper, last = trainer.keeper, trainer.share.terms.num_stages - 1
        keeper.kind = WORK_KINDS[name]
        if keeper.pinned is None and name not in ("lazy", "unmerged"):
            keeper.pinned = (last if name == "lying-tail" else max(0, last - 1),)

    return twist
