"""`RunFigures`: all that a run asks of its peers, in one value: what `iota-p2p run show` prints."""

from dataclasses import dataclass

from iota_p2p.model.activations import activation_bytes
from iota_p2p.model.boundary.kinds import boundary_of
from iota_p2p.model.figures import StageFigures, figures_of
from iota_p2p.run.spec import RunPlan


@dataclass(frozen=True, slots=True)
class StageNeeds:
    """One stage's needs, in bytes.

    Attributes:
        figures: parameters, floating-point operations, bytes per token.
        gradient_bytes: of all weights.
        optimizer_bytes: moments of the optimizer, and fixed tables, which change no more.
        activation_bytes: what one microbatch in flight keeps until its gradient is back.
    """

    figures: StageFigures
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run's needs.

    Attributes:
        stages: by index.
        forward_bytes: per token and boundary.
        backward_bytes: per token and boundary.
        forward_ratio: of the stream in float32 to that.
        backward_ratio: the same.
        tokens_per_microbatch: in one microbatch.
        tokens_per_epoch: in the microbatches that close an epoch.
    """

    stages: tuple[StageNeeds, ...]
    forward_bytes: int
    backward_bytes: int
    forward_ratio: float
    backward_ratio: float
    tokens_per_microbatch: int
    tokens_per_epoch: int

    @property
    def num_parameters(self) -> int:
        """Of the whole model."""
        return sum(stage.figures.num_parameters for stage in self.stages)

    @property
    def flops_per_token(self) -> int:
        """Of the whole model, forward and backward."""
        return sum(stage.figures.flops_per_token for stage in self.stages)


def run_figures(plan: RunPlan) -> RunFigures:
    """Return a run's figures; a second or less for any size."""
    boundary = boundary_of(plan.model, plan.boundary)
    forward_bytes, backward_bytes = boundary.bytes_per_token()
    forward_ratio, backward_ratio = boundary.ratios()
    tokens = plan.epoch.microbatch_size * plan.model.sequence_length
    return RunFigures(
        stages=_needs_of(plan),
        forward_bytes=forward_bytes,
        backward_bytes=backward_bytes,
        forward_ratio=forward_ratio,
        backward_ratio=backward_ratio,
        tokens_per_microbatch=tokens,
        tokens_per_epoch=tokens * plan.epoch.target_microbatches,
    )


def _needs_of(plan: RunPlan) -> tuple[StageNeeds, ...]:
    last = plan.model.num_stages - 1
    activations: dict[tuple[int, bool, bool], int] = {}  # most stages of a large model are alike
    needs = []
    for figures in figures_of(plan):
        shape = (figures.num_blocks, figures.index == 0, figures.index == last)
        if shape not in activations:
            activations[shape] = activation_bytes(plan, figures.index)
        rest_bytes = figures.training_bytes - 2 * figures.weight_bytes
        needs.append(StageNeeds(figures, figures.weight_bytes, rest_bytes, activations[shape]))
    return tuple(needs)
