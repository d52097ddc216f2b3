"""`StageState`: all that continuing a stage needs, and what is checked of one that a peer sent.

The checkpoint is `StageCompute`'s: a safetensors file of weights, optimizer moments and the number of inner steps.
Loading one runs no code, and after `check_state` it can be restored without surprises.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iota_p2p.model.compute import MOMENTS, NUM_STEPS, WEIGHTS
from iota_p2p.model.figures import meta_stage
from iota_p2p.model.optimizer import is_muon
from iota_p2p.model.state import Shapes, check_tensors, tensors_in
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
    """Return a held stage's state now; on the compute lane."""
    certificate = None if held.has_stepped else held.certificate
    return StageState(held.index, held.epoch, held.compute.num_steps, held.compute.checkpoint(), certificate)


def state_bounds(plan: RunPlan, stage: int) -> StateBounds:
    """Return how long the checkpoint of a stage can be."""
    sizes = [parameter.numel() for parameter in meta_stage(plan, stage).parameters()]
    weights_bytes = _FLOAT_BYTES * sum(sizes)
    return StateBounds(3 * weights_bytes + _HEADER_BYTES_PER_PARAMETER * len(sizes) + _HEADER_BYTES, weights_bytes)


def check_state(state: StageState, plan: RunPlan) -> None:
    """Check a state from anybody down to its last number; takes about as long as reading it twice.

    Raises:
        MalformedError: if it does not hold exactly the stage's weights and the optimizer's moments of none or some of
            them in float32, or a number that no training can produce.
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
    return expected


def _check_num_steps(value: Tensor | None, expected: int) -> None:
    if value is None or value.shape or value.dtype != torch.int64 or int(value) != expected:
        raise MalformedError("state-steps", f"expected {expected} as the number of steps, got {value}")
