"""What a peer is believed of a stage's state."""

from collections.abc import Callable

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from iota_p2p.model.compute import StageCompute
from iota_p2p.training.stage_state import StageState, check_state, state_bounds
from iota_p2p_crypto.errors import MalformedError
from tests.numerics.pipelines import SEED, make_plan

PLAN = make_plan("subspace:4:8")


def trained(stage: int, num_steps: int = 2) -> StageCompute:
    """Return a stage after some steps on random gradients."""
    compute = StageCompute(PLAN, stage, seed=SEED)
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        for parameter in compute.stage.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        compute.step(1)
    return compute


def state_of(compute: StageCompute) -> StageState:
    return StageState(compute.stage.index, 5, compute.num_steps, compute.checkpoint())


@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize("num_steps", [0, 2])
def test_state__continues_at_another_peer_as_if_nothing_had_happened(stage: int, num_steps: int) -> None:
    ours = trained(stage, num_steps)
    state = state_of(ours)
    check_state(state, PLAN)
    assert len(state.checkpoint) <= state_bounds(PLAN, stage).max_bytes
    theirs = StageCompute(PLAN, stage, seed=None)
    theirs.restore(state.checkpoint)
    for compute in (ours, theirs):
        for parameter in compute.stage.parameters():
            parameter.grad = torch.ones_like(parameter)
        compute.step(1)
    assert theirs.checkpoint() == ours.checkpoint()


def test_bound__is_near() -> None:
    """A liar cannot make us fetch much more than a state."""
    assert state_bounds(PLAN, 1).max_bytes < 2 * len(state_of(trained(1)).checkpoint) + 128 * 1024


WEIGHT = "weights/blocks.1.ffn.up.weight"
MOMENTUM = "moments/blocks.1.ffn.up.weight/momentum"
SQUARES = "moments/blocks.1.ffn_norm.weight/exp_avg_sq"
STEP = "moments/blocks.1.ffn_norm.weight/step"
Tensors = dict[str, Tensor]


def put(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda t: t.pop(WEIGHT), "state-names"),
        (lambda t: t.pop(SQUARES), "state-names"),
        (lambda t: t.update(surprise=torch.zeros(1)), "state-names"),
        (lambda t: t.update({f"{MOMENTUM}/exp_avg": torch.zeros(1)}), "state-names"),
        (put(WEIGHT, lambda w: w.T.contiguous()), "state-shape"),
        (put(WEIGHT, lambda w: w.half()), "state-shape"),
        (put(MOMENTUM, lambda m: m[:-1]), "state-shape"),
        (put(STEP, lambda s: s.reshape(1)), "state-shape"),
        (put(WEIGHT, lambda w: w * np.nan), "state-range"),
        (put(MOMENTUM, lambda m: m + np.inf), "state-range"),
        (put(SQUARES, lambda v: v - 1e9), "state-range"),
        (put(STEP, lambda s: s - 100), "state-range"),
        (lambda t: t.pop("num_steps"), "state-steps"),
        (put("num_steps", lambda n: n + 1), "state-steps"),
        (put("num_steps", lambda n: n.float()), "state-steps"),
        (put("num_steps", lambda n: n.reshape(1)), "state-steps"),
    ],
)
def test_state__reject_what_no_training_gives(edit: Callable[[Tensors], object], rule: str) -> None:
    state = state_of(trained(1))
    tensors = safetensors.torch.load(state.checkpoint)
    edit(tensors)
    with pytest.raises(MalformedError) as caught:
        check_state(StageState(1, 5, 2, safetensors.torch.save(tensors)), PLAN)
    assert caught.value.rule == rule


def test_state__may_lack_all_moments_of_a_parameter() -> None:
    state = state_of(trained(1))
    tensors = safetensors.torch.load(state.checkpoint)
    del tensors[MOMENTUM]
    check_state(StageState(1, 5, 2, safetensors.torch.save(tensors)), PLAN)


def test_state__reject_any_other_bytes() -> None:
    with pytest.raises(MalformedError):
        check_state(StageState(1, 5, 2, b"\xff" * 100), PLAN)


def test_state__reject_another_stages() -> None:
    state = state_of(trained(2))
    with pytest.raises(MalformedError) as caught:
        check_state(StageState(1, 5, 2, state.checkpoint), PLAN)
    assert caught.value.rule == "state-names"
