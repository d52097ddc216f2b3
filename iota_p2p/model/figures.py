"""What a run asks of a peer, stage by stage, computed without allocating anything: `run show` prints it.

Shapes come from the stages themselves, built on torch's meta device.
"""

from dataclasses import dataclass

import torch

from iota_p2p.model.optimizer import is_muon
from iota_p2p.model.stage import Stage
from iota_p2p.run.spec import RunPlan

_FLOAT32_BYTES = 4
# A weight takes part in one multiplication and one addition forward, and in twice that backward.
_FLOPS_PER_WEIGHT = 6


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One stage's needs.

    Attributes:
        index: of the stage.
        num_blocks: decoder blocks in it.
        num_parameters: trained weights.
        weight_bytes: the weights, which a joiner downloads and replicas average.
        training_bytes: weights, gradients, the optimizer's moments and fixed tables; activations come on top.
        flops_per_token: forward and backward.
        forward_bytes: sent to the next stage per token; 0 in the last.
        backward_bytes: sent to the previous stage per token; 0 in the first.
    """

    index: int
    num_blocks: int
    num_parameters: int
    weight_bytes: int
    training_bytes: int
    flops_per_token: int
    forward_bytes: int
    backward_bytes: int


def meta_stage(plan: RunPlan, index: int) -> Stage:
    """Return a stage that has shapes and no values."""
    with torch.device("meta"):
        return Stage(plan, index, seed=None)


def figures_of(plan: RunPlan) -> tuple[StageFigures, ...]:
    """Return the figures of every stage of a run."""
    return tuple(_figures(plan, index) for index in range(plan.model.num_stages))


def _figures(plan: RunPlan, index: int) -> StageFigures:
    stage = meta_stage(plan, index)
    parameters = dict(stage.named_parameters())
    count = sum(parameter.numel() for parameter in parameters.values())
    # Muon keeps one moment per weight, AdamW two.
    moments = sum(p.numel() * (1 if is_muon(name, p) else 2) for name, p in parameters.items())
    fixed = sum(buffer.numel() for buffer in stage.buffers())
    forward, backward = stage.boundary.bytes_per_token()
    return StageFigures(
        index=index,
        num_blocks=len(stage.blocks),
        num_parameters=count,
        weight_bytes=count * _FLOAT32_BYTES,
        training_bytes=(2 * count + moments + fixed) * _FLOAT32_BYTES,
        flops_per_token=_flops_per_token(stage),
        forward_bytes=0 if stage.is_last else forward,
        backward_bytes=0 if stage.is_first else backward,
    )


def _flops_per_token(stage: Stage) -> int:
    """Count matrix products; looking up a table costs nothing, attention over T/2 positions on average."""
    model = stage.plan.model
    weights = sum(m.weight.numel() for m in stage.modules() if isinstance(m, torch.nn.Linear))
    attention = 2 * (model.sequence_length // 2) * model.width * len(stage.blocks)
    return _FLOPS_PER_WEIGHT * (weights + attention)
