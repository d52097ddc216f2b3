"""The inner optimizer of a stage: Muon for the matrices inside blocks, AdamW for everything else.

The learning rate is a pure function of the step, so a replay needs nothing but the step's number. Gradients are
clipped by the norm of the stage, not of the model: no stage can know the others'.
"""

from functools import partial

import torch
from torch import Tensor, nn

from iota_p2p.model.adamw import adamw_step
from iota_p2p.model.muon import Moments, muon_step
from iota_p2p.run.spec import OptimizerSpec
from iota_p2p_crypto.errors import LocalProtocolError

State = dict[str, Tensor]


def rate_factor(spec: OptimizerSpec, step: int) -> float:
    """Return the share of the peak rate at a step, counted from 0: linear up, then linear down, then level."""
    warmup = min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
    if not spec.decay_steps:
        return warmup
    floor = float(spec.final_fraction)
    return warmup * (floor + (1 - floor) * max(0.0, 1 - step / spec.decay_steps))


def is_muon(name: str, parameter: Tensor) -> bool:
    """True for the matrices inside blocks."""
    return name.startswith("blocks.") and parameter.ndim == 2  # noqa: PLR2004 - a matrix


class StageOptimizer:
    """Both optimizers of one stage, stepped together."""

    def __init__(self, module: nn.Module, spec: OptimizerSpec) -> None:
        self.spec = spec
        self.parameters = dict(module.named_parameters())
        self._moments: dict[str, Moments] = {name: {} for name in self.parameters}
        self._muon = partial(muon_step, momentum=float(spec.muon_momentum), weight_decay=float(spec.muon_weight_decay))
        self._adamw = partial(
            adamw_step,
            beta1=float(spec.adamw_beta1),
            beta2=float(spec.adamw_beta2),
            weight_decay=float(spec.adamw_weight_decay),
        )

    def step(self, step: int, num_microbatches: int) -> float:
        """Apply the summed gradients of `num_microbatches` as inner step `step`; return their mean's norm."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        if not gradients:
            raise LocalProtocolError("expected microbatches before a step, got no gradients")
        torch._foreach_div_(gradients, float(num_microbatches))
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.spec.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), float(self.spec.clip_norm), norm)
        factor = rate_factor(self.spec, step)
        for name, parameter in self.parameters.items():
            moments = self._moments[name]
            if is_muon(name, parameter):
                self._muon(parameter, moments, rate=float(self.spec.muon_rate) * factor)
            else:
                self._adamw(parameter, moments, rate=float(self.spec.adamw_rate) * factor)
        self.forget_gradients()
        return float(norm)

    def forget_gradients(self) -> None:
        """Drop the gradients summed since the last step."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> State:
        """Return the moments by parameter and kind, such as `blocks.0.ffn.up.weight/momentum`."""
        return {f"{name}/{key}": value for name, moments in self._moments.items() for key, value in moments.items()}

    def load(self, state: State) -> None:
        """Replace the moments by ones from `state`; raises KeyError if they are no parameter's of this stage."""
        self._moments = {name: {} for name in self.parameters}
        for path, value in state.items():
            name, key = path.rsplit("/", 1)
            self._moments[name][key] = value.clone()
