"""A model of a few thousand weights, and pipelines of it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iota_p2p.model.compute import Held, StageCompute
from iota_p2p.run.spec import BoundarySpec, EpochSpec, ModelSpec, OptimizerSpec, RunPlan

SEED = 7
BOUNDARIES = (
    "none:0:8",
    "bf16:0:8",
    "int8:0:8",
    "iota:4:16",
    "iota:4:8",
    "iota:3:4",
    "anchored:4:16",
    "anchored:4:8",
    "anchored:3:4",
    "subspace:4:16",
    "subspace:4:8",
    "subspace:3:4",
)


def make_plan(boundary: str = "none:0:8", *, cuts: tuple[int, ...] = (1, 2, 3), table_rank: int = 0) -> RunPlan:
    """Return a four-block plan with a boundary `kind:width:bits`, without clipping."""
    kind, width, bits = boundary.split(":")
    spec = {"kind": kind, "width": int(width), "code_bits": int(bits), "token_table_rank": table_rank}
    return RunPlan(
        name="test",
        model=ModelSpec(
            vocab_size=50,
            width=32,
            num_layers=4,
            num_heads=4,
            num_kv_heads=2,
            ffn_width=48,
            sequence_length=16,
            stage_cuts=cuts,
        ),
        boundary=BoundarySpec.model_validate(spec),
        # A stage clips by its own norm, which one process cannot do for four: comparisons need it off.
        optimizer=OptimizerSpec(clip_norm=0, warmup_steps=2),  # type: ignore[arg-type]  # an Exact takes an int
        epoch=EpochSpec(microbatch_size=2, inner_steps=1, target_microbatches=1, deadline_s=1),
    )


def make_stages(plan: RunPlan) -> list[StageCompute]:
    """Return the stages of a plan with the test's seed."""
    return [StageCompute(plan, index, seed=SEED) for index in range(plan.model.num_stages)]


def make_window(seed: int = 0, *, size: int = 2) -> Tensor:
    """Return random tokens, B x (T+1)."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 50, (size, 17)))


def forward(stages: Sequence[StageCompute], window_BT1: Tensor) -> list[Held]:
    """Pass a microbatch through all stages."""
    held: list[Held] = []
    for stage in stages:
        held.append(stage.forward(window_BT1, held[-1].payload if held else None))
    return held


def backward(stages: Sequence[StageCompute], held: Sequence[Held]) -> list[bytes]:
    """Pass its gradients back; return what travelled."""
    gradient = None
    travelled = []
    for stage, item in zip(reversed(stages), reversed(held), strict=True):
        gradient = stage.backward(item, gradient)
        travelled.append(gradient)
    return [item for item in travelled if item is not None]
