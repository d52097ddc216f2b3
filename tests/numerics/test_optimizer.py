"""Optimizers against torch's own, the schedule, and their state."""

import subprocess
import sys
from decimal import Decimal

import pytest
import torch

from iota_p2p.model.adamw import adamw_step
from iota_p2p.model.compute import StageCompute
from iota_p2p.model.muon import muon_step, orthogonalised
from iota_p2p.model.optimizer import is_muon, rate_factor
from iota_p2p.run.spec import OptimizerSpec
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError
from tests.numerics.pipelines import SEED, backward, forward, make_plan, make_stages, make_window


@pytest.mark.parametrize("shape", [(32, 32), (48, 16), (16, 48)])
def test_muon__follows_torchs_own(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    moments: dict[str, torch.Tensor] = {}
    torchs = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        muon_step(ours, moments, rate=0.1, momentum=0.9, weight_decay=0.1)
        torchs.step()  # type: ignore[no-untyped-call]  # torch has not annotated it
    mine_flat, torchs_flat = ours.detach().flatten(), theirs.detach().flatten()
    alike = torch.nn.functional.cosine_similarity(mine_flat, torchs_flat, dim=0)
    assert float(alike) > 0.999  # the rest is torch's bfloat16
    assert float(mine_flat.norm() / torchs_flat.norm()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw__is_torchs_own_to_the_bit(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(33, 17, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    moments: dict[str, torch.Tensor] = {}
    torchs = torch.optim.AdamW([theirs], betas=(0.9, 0.95), weight_decay=weight_decay)
    for number in range(20):
        rate = 0.01 / (number + 1)
        torchs.param_groups[0]["lr"] = rate
        ours.grad = torch.randn(start.shape, generator=generator) * 10.0**-number
        theirs.grad = ours.grad.clone()
        adamw_step(ours, moments, rate=rate, beta1=0.9, beta2=0.95, weight_decay=weight_decay)
        torchs.step()
        assert torch.equal(ours, theirs)
    assert moments.keys() == torchs.state[theirs].keys()
    assert all(torch.equal(value, torchs.state[theirs][name]) for name, value in moments.items())


def test_training__imports_no_compiler() -> None:
    """It would take a joiner two seconds; what a peer does with torch before and in its first step is here."""
    script = """
import sys
from iota_p2p.model.run_figures import run_figures
from iota_p2p.training.speed import measure_speed
from iota_p2p.training.stage_state import state_bounds
from tests.numerics.pipelines import backward, forward, make_plan, make_stages, make_window

plan = make_plan()
measure_speed(plan, "cpu")
run_figures(plan)
state_bounds(plan, 0)
stages = make_stages(plan)
backward(stages, forward(stages, make_window()))
for stage in stages:
    stage.step(1)
sys.exit({"torch._dynamo", "sympy"} & sys.modules.keys() or None)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_orthogonalised__has_singular_values_near_1() -> None:
    matrix = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.6 < float(values.min()) < float(values.max()) < 1.3


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.05), (9, 0.5 * (1 - 0.85 * 9 / 250)), (125, 0.575), (250, 0.15), (9999, 0.15)]
)
def test_rate_factor__rises_then_falls_then_stays(step: int, factor: float) -> None:
    assert rate_factor(OptimizerSpec(decay_steps=250), step) == pytest.approx(factor)


def test_rate_factor__never_falls_without_decay_steps() -> None:
    assert rate_factor(OptimizerSpec(), 10**9) == 1


def test_clip__bounds_the_first_step() -> None:
    plan = make_plan()
    clipped = plan.model_copy(update={"optimizer": OptimizerSpec(clip_norm=Decimal("1e-9"), adamw_weight_decay=0)})  # type: ignore[arg-type]
    stages = make_stages(clipped)
    backward(stages, forward(stages, make_window()))
    stage = stages[-1]
    stage.step(1)
    moment = stage.optimizer.state()["head.output.weight/exp_avg"]
    assert float(moment.norm()) <= 1e-9


def test_step__averages_microbatches() -> None:
    """Four equal microbatches are one step like one of them."""
    norms = []
    for count in (1, 4):
        stages = make_stages(make_plan())
        for _ in range(count):
            backward(stages, forward(stages, make_window()))
        norms.append([stage.step(count) for stage in stages])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_is_muon__takes_only_matrices_of_blocks() -> None:
    names = dict(StageCompute(make_plan("iota:4:8"), 0, seed=SEED).stage.named_parameters())
    chosen = {name for name, p in names.items() if is_muon(name, p)}
    assert chosen == {name for name in names if name.startswith("blocks.") and "norm" not in name}


def test_checkpoint__continues_to_the_same_bits() -> None:
    plan = make_plan(cuts=())
    first, second = StageCompute(plan, 0, seed=SEED), StageCompute(plan, 0, seed=SEED)
    first.backward(first.forward(make_window(0)))
    first.step(1)
    second.restore(first.checkpoint())
    for compute in (first, second):
        compute.backward(compute.forward(make_window(1)))
        compute.step(1)
    assert first.checkpoint() == second.checkpoint()


def test_checkpoint__is_refused_by_another_stage() -> None:
    plan = make_plan()
    with pytest.raises(MalformedError) as caught:
        StageCompute(plan, 1, seed=SEED).restore(StageCompute(plan, 2, seed=SEED).checkpoint())
    assert caught.value.rule == "checkpoint"


def test_step_without_gradients__is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="no gradients"):
        StageCompute(make_plan(), 0, seed=SEED).step(1)
