"""`StageState`: all that continuing a stage needs, and what is checked of one that a peer sent.

The checkpoint is `StageCompute`'s: a safetensors file of weights, optimizer moments and the number of inner steps.
Loading one runs no code, and after `check_state` it can be restored without surprises.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iota_p2p.merge.outer_step import OuterState, Vector
from iota_p2p.model.compute import MOMENTS, NUM_STEPS, VELOCITY, WEIGHTS
from iota_p2p.model.figures import meta_stage
from iota_p2p.model.optimizer import is_muon
from iota_p2p.model.state import Shapes, check_tensors, tensors_in, tensors_of, to_bytes
from iota_p2p.run.spec import RunPlan
from iota_p2p.training.held_stage import HeldStage
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import MalformedError

# What safetensors says of each tensor, its name and moment among it, at most; four tensors per parameter.
_HEADER_BYTES_PER_PARAMETER = 4 * 256
_HEADER_BYTES = 64 * 1024  # and room for a model of no parameters
_FLOAT_BYTES = 4
_MUON_MOMENTS = frozenset({"momentum"})
_ADAMW_MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "step"})
_NOT_NEGATIVE = frozenset({"exp_avg_sq", "step"})


@dataclass(frozen=True, slots=True)
class StageState:
    """A stage at one moment.

    Attributes:
        stage: its index.
        epoch: in which it was.
        num_steps: inner steps it has behind it; the checkpoint says the same.
        checkpoint: for `StageCompute.restore`.
        certificate: digest of the merge certificate that names these very weights; None if none does.
    """

    stage: int
    epoch: int
    num_steps: int
    checkpoint: bytes
    certificate: Digest | None = None


@dataclass(frozen=True, slots=True)
class StateBounds:
    """How long a stage's checkpoint can be.

    Attributes:
        max_bytes: of the whole: weights, two moments for each, and names.
        weights_bytes: of the weights, exactly.
    """

    max_bytes: int
    weights_bytes: int


def freeze(held: HeldStage) -> StageState:
    """Return a held stage's state now, with the outer momentum's memory of its epoch; on the compute lane."""
    certificate = None if held.has_stepped else held.certificate
    velocity = None if held.velocity is None else torch.from_numpy(held.velocity)
    return StageState(held.index, held.epoch, held.compute.num_steps, held.compute.checkpoint(velocity), certificate)


@dataclass(frozen=True, slots=True)
class Settled:
    """What a stage's replicas began an epoch with: all that a recovery needs of it.

    The moments of the inner optimizer are not in it. Every replica has its own, they are two thirds of a state, and
    whoever goes on without them makes up for it within some steps (docs/decisions/0203).

    Attributes:
        stage: its index.
        epoch: the epoch.
        num_steps: inner steps before it.
        base: weights, and the outer momentum's memory if the run has one.
        certificate: digest of the merge certificate that names them; None if there is none, or not yet.
    """

    stage: int
    epoch: int
    num_steps: int
    base: OuterState
    certificate: Digest | None

    @classmethod
    def of(cls, held: HeldStage) -> "Settled | None":
        """Return it of a held stage; None as long as it is not known; on the compute lane."""
        if held.base is None:
            return None
        num_steps = held.compute.num_steps - held.steps_in_epoch
        return cls(held.index, held.epoch, num_steps, held.base, held.certificate)

    def state(self, plan: RunPlan) -> StageState:
        """Return it as a state; takes about as long as copying it."""
        parts = tensors_of(meta_stage(plan, self.stage), self.base.theta_W)
        tensors = {f"{WEIGHTS}{name}": part for name, part in parts.items()}
        tensors[NUM_STEPS] = torch.tensor(self.num_steps)
        if self.base.velocity_W is not None:
            tensors[VELOCITY] = torch.from_numpy(self.base.velocity_W)
        return StageState(self.stage, self.epoch, self.num_steps, to_bytes(tensors), self.certificate)


def velocity_in(state: StageState) -> Vector | None:
    """Return the outer momentum's memory in a state that has been checked; None if it has none."""
    velocity = tensors_in(state.checkpoint).get(VELOCITY)
    return None if velocity is None else velocity.numpy()


def state_bounds(plan: RunPlan, stage: int) -> StateBounds:
    """Return how long the checkpoint of a stage can be."""
    sizes = [parameter.numel() for parameter in meta_stage(plan, stage).parameters()]
    weights_bytes = _FLOAT_BYTES * sum(sizes)
    # Weights, two moments, and what the outer step remembers.
    most = 4 if plan.merge is not None and plan.merge.momentum else 3
    return StateBounds(most * weights_bytes + _HEADER_BYTES_PER_PARAMETER * len(sizes) + _HEADER_BYTES, weights_bytes)


def check_state(state: StageState, plan: RunPlan) -> None:
    """Check a state from anybody down to its last number; takes about as long as reading it twice.

    Raises:
        MalformedError: if it does not hold exactly the stage's weights, the optimizer's moments of none or some of
            them, and perhaps the outer momentum's memory where the run has one, all in float32; or a number that no
            training can produce.
    """
    tensors = tensors_in(state.checkpoint)
    _check_num_steps(tensors.pop(NUM_STEPS, None), state.num_steps)
    check_tensors(tensors, _expected(plan, state.stage, tensors.keys()))
    for name, values in tensors.items():
        if name.startswith(MOMENTS) and name.rpartition("/")[2] in _NOT_NEGATIVE and bool((values < 0).any()):
            raise MalformedError("state-range", f"expected no negative value in {name}")
    _check_layout(state.checkpoint, {name: values for name, values in tensors.items() if name.startswith(WEIGHTS)})


def _check_layout(checkpoint: bytes, weights: Mapping[str, Tensor]) -> None:
    """Check that the weights are the end of the file in the order of their names: manifests name them as such."""
    end = len(checkpoint)
    for name in sorted(weights, reverse=True):
        values = weights[name].numpy().tobytes()
        if checkpoint[end - len(values) : end] != values:
            raise MalformedError("state-layout", f"expected {name} at byte {end - len(values)}, got other values")
        end -= len(values)


def _expected(plan: RunPlan, stage: int, present: Container[str]) -> Shapes:
    """Return the shapes that a checkpoint must have, given which moments it has at all.

    A parameter has all its moments or none: none before its first gradient.
    """
    expected: dict[str, torch.Size] = {}
    for name, parameter in meta_stage(plan, stage).named_parameters():
        expected[f"{WEIGHTS}{name}"] = parameter.shape
        kinds = _MUON_MOMENTS if is_muon(name, parameter) else _ADAMW_MOMENTS
        if any(f"{MOMENTS}{name}/{kind}" in present for kind in kinds):
            for kind in kinds:
                expected[f"{MOMENTS}{name}/{kind}"] = torch.Size() if kind == "step" else parameter.shape
    if VELOCITY in present and plan.merge is not None and plan.merge.momentum:
        expected[VELOCITY] = torch.Size([sum(parameter.numel() for parameter in meta_stage(plan, stage).parameters())])
    return expected


def _check_num_steps(value: Tensor | None, expected: int) -> None:
    if value is None or value.shape or value.dtype != torch.int64 or int(value) != expected:
        raise MalformedError("state-steps", f"expected {expected} as the number of steps, got {value}")
