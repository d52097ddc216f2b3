"""AdamW (Loshchilov and Hutter, 2019), to the bit what `torch.optim.AdamW` computes for one tensor after another.

Whoever makes a `torch.optim.Optimizer` imports `torch._dynamo` with it, a compiler that nobody here needs: more than a
second of processor time before a joiner's first step (docs/decisions/0104). The test compares the bits.
"""

import torch
from torch import Tensor

from iota_p2p.model.muon import Moments

_EPSILON = 1e-8  # torch's


@torch.no_grad()
def adamw_step(
    parameter: Tensor, moments: Moments, *, rate: float, beta1: float, beta2: float, weight_decay: float
) -> None:
    """Update a tensor by its gradient.

    `moments` is empty before the first step and then holds `step`, a float32 on the CPU, `exp_avg` and `exp_avg_sq`.
    """
    gradient = parameter.grad
    if gradient is None:
        return
    if not moments:
        moments["step"] = torch.tensor(0.0)
        moments["exp_avg"] = torch.zeros_like(gradient)
        moments["exp_avg_sq"] = torch.zeros_like(gradient)
    moments["step"] += 1
    step = moments["step"].item()
    first, second = moments["exp_avg"], moments["exp_avg_sq"]
    parameter.mul_(1 - rate * weight_decay)
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    spread = (second.sqrt() / (1 - beta2**step) ** 0.5).add_(_EPSILON)
    parameter.addcdiv_(first, spread, value=-rate / (1 - beta1**step))
