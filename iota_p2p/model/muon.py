"""Muon: momentum whose update is made nearly orthogonal (Keller Jordan, 2024), as `torch.optim.Muon` has it.

Torch's own computes the orthogonalisation in bfloat16 always. On a CPU without bfloat16 units that takes three times
as long as the forward and backward pass together, in float32 less than one; so this one follows the device
(docs/decisions/0104). The test compares the two.

Shapes: R rows, C columns, S the smaller of both.
"""

import math

import torch
from torch import Tensor

Moments = dict[str, Tensor]

# The quintic that lifts small singular values fastest, and how often it is applied: both from the original.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_NUM_ITERATIONS = 5
_EPSILON = 1e-7


def orthogonalised(matrix_RC: Tensor) -> Tensor:
    """Return U V^T of the matrix U S V^T, with singular values between about .7 and 1.2 instead of all 1."""
    wide = matrix_RC if matrix_RC.shape[0] <= matrix_RC.shape[1] else matrix_RC.T
    x = wide.float() if wide.device.type == "cpu" else wide.bfloat16()
    x = x / x.norm().clamp(min=_EPSILON)  # now no singular value is above 1
    for _ in range(_NUM_ITERATIONS):
        gram_SS = x @ x.T
        x = torch.addmm(x, torch.addmm(gram_SS, gram_SS, gram_SS, beta=_B, alpha=_C), x, beta=_A)
    return x if wide is matrix_RC else x.T


@torch.no_grad()
def muon_step(parameter: Tensor, moments: Moments, *, rate: float, momentum: float, weight_decay: float) -> None:
    """Update a matrix by its gradient: Nesterov momentum, orthogonalised; tall ones take steps larger by sqrt(R / C).

    `moments` is empty before the first step and then holds `momentum`.
    """
    gradient = parameter.grad
    if gradient is None:
        return
    if not moments:
        moments["momentum"] = torch.zeros_like(gradient)
    moments["momentum"].lerp_(gradient, 1 - momentum)
    update = orthogonalised(gradient.lerp(moments["momentum"], momentum))
    rows, columns = parameter.shape
    parameter.mul_(1 - rate * weight_decay)
    parameter.add_(update.to(parameter.dtype), alpha=-rate * math.sqrt(max(1.0, rows / columns)))
