"""One stage held by this peer: its weights, its work log, and the inner step after every so many microbatches.

Everything here runs on the compute lane, one call at a time; nothing here awaits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from iota_p2p.merge.outer_step import OuterState, Vector
from iota_p2p.model.compute import Held, StageCompute, Weights
from iota_p2p.model.state import set_vector, vector_of
from iota_p2p.run.data import RunData
from iota_p2p.run.spec import RunSpec
from iota_p2p.training.stage_gate import StageGate
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_protocols.chain import StageInput
from iota_p2p_protocols.work_log import MAX_ENTRIES, Backward, Forward, InnerStep, WorkLog

# What one more microbatch may add to the log: its forward, that again in the next epoch, its backward, a step.
_ENTRIES_PER_MICROBATCH = 4
# Forwards whose weights are remembered: eight under way on a stage, and as many that came to nothing.
_MAX_OPEN = 16


@dataclass(frozen=True, slots=True)
class Passed:
    """A forward pass that waits for its gradient.

    Attributes:
        work: what it is about.
        log: in which it stands; its epoch may be over.
        position: of its entry there.
        held: the graph and the payload to send.
    """

    work: StageInput
    log: WorkLog
    position: int
    held: Held


@dataclass(frozen=True, slots=True)
class EpochWork:
    """What an epoch came to on one stage.

    Attributes:
        theta_W: the weights now.
        samples: microbatches in the inner steps taken; the gradients of an unfinished step do not count.
        log_root: root of the work log.
    """

    theta_W: Vector
    samples: int
    log_root: Digest


class HeldStage:
    """A stage and what was done with it in this epoch.

    Attributes:
        epoch: whose log it keeps.
        gate: what all work on it goes through.
        base: the state that the epoch began with, which its replicas agree on; None in a run that never merges, and
            as long as it is not known.
        base_digest: SHA-256 of the base's weights, in float32 and the order of names.
        certificate: digest of the merge certificate that names the base; None if there is none, or not yet.
        residual_W: what the codec has lost of our contributions so far.
        on_begun, on_closed: told, on the lane, when an epoch's log begins and when nothing more comes into it; the
            weights are then those that the log begins or ends with.
        on_stepped: told, on the lane, of every inner step when it is in the log.
    """

    def __init__(self, spec: RunSpec, index: int, data: RunData, compute: StageCompute) -> None:
        self.spec = spec
        self.index = index
        self.compute = compute
        self.epoch = 0
        self.log = WorkLog()
        self.num_backwards = 0  # since it is held, for throughput
        self.gate = StageGate()
        self.base: OuterState | None = None
        self.base_digest: Digest | None = None
        self.certificate: Digest | None = None
        self.residual_W: Vector | None = None
        self._brought_W: Vector | None = None
        self.on_begun: Callable[[HeldStage], None] = lambda _: None
        self.on_closed: Callable[[HeldStage], None] = lambda _: None
        self.on_stepped: Callable[[HeldStage], None] = lambda _: None
        self._is_closed = True  # until an epoch begins
        self._data = data
        self._since_step = 0
        self._steps_in_epoch = 0
        self._open: dict[int, tuple[int, Weights]] = {}  # forwards that may still go back: their version and weights

    def begin(self, epoch: int, *, settled: bool, velocity_W: Vector | None = None) -> None:
        """Begin to hold the stage in an epoch.

        Args:
            epoch: the epoch.
            settled: whether the weights are the ones the epoch began with, as far as anybody knows; if not, the
                merger asks the replicas for those.
            velocity_W: the outer momentum's memory that came with the weights, if any.
        """
        self.start_epoch(epoch)
        self._brought_W = velocity_W
        if settled and self.spec.merge is not None:
            self._settle(OuterState(vector_of(self.compute.stage), velocity_W))

    def forget_base(self) -> None:
        """Note that the replicas agreed on another base than ours; its velocity is the best we have until it comes."""
        self._brought_W, self.base = self.velocity, None

    @property
    def velocity(self) -> Vector | None:
        """The outer momentum's memory, W: the base's, or as long as that is not known what came with the weights."""
        return self._brought_W if self.base is None else self.base.velocity_W

    @property
    def steps_in_epoch(self) -> int:
        """Inner steps in the log."""
        return self._steps_in_epoch

    def open_weights(self) -> dict[int, Weights]:
        """Return the weights of the forwards of this log that may still go back, by the steps taken before them."""
        return dict(self._open.values())

    @property
    def has_stepped(self) -> bool:
        """Whether the weights are other ones than at the epoch's beginning."""
        return self._steps_in_epoch > 0

    def work(self) -> EpochWork:
        """Return what the epoch has come to."""
        samples = self._steps_in_epoch * self.spec.epoch.microbatches_per_step
        return EpochWork(vector_of(self.compute.stage), samples, self.log.root)

    def install(self, state: OuterState, epoch: int) -> None:
        """Begin an epoch with the state that the replicas agree on; the inner optimizer keeps its moments."""
        self.close_epoch()
        set_vector(self.compute.stage, state.theta_W)
        self.start_epoch(epoch)
        self._settle(state)

    def close_epoch(self) -> None:
        """Tell that nothing more comes into the log: what the weights are now is what it leads to."""
        if not self._is_closed:
            self._is_closed = True
            self.on_closed(self)

    def _settle(self, state: OuterState) -> None:
        self.base, self.certificate, self._brought_W = state, None, None
        self.base_digest = digest(state.theta_W.data.cast("B"))

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch's log. The gradients of an unfinished inner step are dropped: no log would hold them all.

        Microbatches that are under way stay of use. When their gradients come, their forwards are run again, with
        the epoch's weights, and logged in its log, so that it replays from these weights alone.
        """
        self.close_epoch()
        self.epoch = epoch
        self.log = WorkLog()
        self.compute.optimizer.forget_gradients()
        self.compute.weights_changed()
        self._since_step = 0
        self._steps_in_epoch = 0
        self._open.clear()
        self._is_closed = False
        self.on_begun(self)

    def has_room(self, under_way: int) -> bool:
        """Return whether this epoch's log can take one more microbatch besides those under way."""
        return len(self.log) + _ENTRIES_PER_MICROBATCH * (under_way + 1) <= MAX_ENTRIES

    def forward(self, work: StageInput, payload: bytes | None) -> Passed:
        """Run a microbatch forward; raises as `StageCompute.forward`."""
        held = self.compute.forward(self._window(work), payload)
        position = self._log_forward(work)
        self._open[position] = (self._steps_in_epoch, held.weights)
        if len(self._open) > _MAX_OPEN:
            del self._open[min(self._open)]
        return Passed(work, self.log, position, held)

    def check_gradient(self, passed: Passed, gradient: bytes) -> None:
        """Raise MalformedError if a gradient from the next stage is not one, while it can still be had elsewhere."""
        self.compute.check_gradient(passed.held, gradient)

    def backward(self, passed: Passed, gradient: bytes | None, in_digest: bytes) -> bytes | None:
        """Run it backward, and take an inner step when it is time; raises as `StageCompute.backward`."""
        back = self.compute.backward(passed.held, gradient)
        position = passed.position if passed.log is self.log else self._log_forward(passed.work, again=True)
        self._open.pop(position, None)
        self.log.append(Backward(forward=position, in_digest=in_digest))
        self.num_backwards += 1
        self._since_step += 1
        if self._since_step == self.spec.epoch.microbatches_per_step:
            self._take_step()
        return back

    def evaluate(
        self, window_BT1: torch.Tensor, payload: bytes | None, *, logits: bool
    ) -> bytes | float | torch.Tensor:
        """Run forward only: the payload for the next stage, or in the last stage the loss or the last logits, V.

        `window_BT1` is B x (T+1) tokens. Raises as `StageCompute.forward`.
        """
        if logits and self.compute.stage.is_last:
            return self.compute.last_logits(window_BT1, payload)
        held = self.compute.evaluate(window_BT1, payload)
        if held.payload is not None:
            return held.payload
        assert held.loss is not None  # noqa: S101 - the last stage's forward has one
        return held.loss

    def _log_forward(self, work: StageInput, *, again: bool = False) -> int:
        return self.log.append(Forward(microbatch=work.microbatch, in_digest=work.in_digest, again=again))

    def _take_step(self) -> None:
        self.compute.step(self._since_step)
        self.log.append(InnerStep(number=self._steps_in_epoch))
        self._steps_in_epoch += 1
        self._since_step = 0
        self.on_stepped(self)

    def _window(self, work: StageInput) -> torch.Tensor:
        return torch.from_numpy(self._data.training_window(work.microbatch))
