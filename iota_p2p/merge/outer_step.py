"""The outer step: from an epoch's first weights and the averaged pseudo-gradient to the next epoch's first weights.

Every replica takes it on the same bytes and must end with the same bytes, whatever its platform: float32 throughout,
each product and each sum a numpy operation of its own, so that no compiler fuses two roundings into one.

Shapes: W, the number of a stage's weights.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iota_p2p.run.spec import MergeSpec
from iota_p2p_crypto.errors import LocalProtocolError

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OuterState:
    """What replicas agree on between epochs.

    Attributes:
        theta_W: the weights.
        velocity_W: the outer momentum's memory; None where the spec has no momentum.
    """

    theta_W: Vector
    velocity_W: Vector | None = None


def momentum_at(spec: MergeSpec, epoch: int) -> np.float32:
    """Return the momentum of an epoch: it rises linearly, because on short runs a high one does harm (facts, 7)."""
    first, last = float(spec.first_momentum), float(spec.momentum)
    share = 1.0 if spec.momentum_warmup_epochs == 0 else min(1.0, epoch / spec.momentum_warmup_epochs)
    return np.float32(first + (last - first) * share)


def outer_step(state: OuterState, gradient_W: Vector, spec: MergeSpec, epoch: int) -> OuterState:
    """Return the next epoch's first state.

    Plain averaging is rate 1 and momentum 0: theta - mean(theta - local) is the mean of the local weights. Otherwise
    Nesterov's momentum in the form of DiLoCo (2311.08105): v = m v + g, theta = theta - rate (g + m v).

    Args:
        state: the epoch's first state.
        gradient_W: mean pseudo-gradient, old minus new; 0 where a shard was lost.
        spec: rate and momentum.
        epoch: the epoch that ends.

    Raises:
        LocalProtocolError: if the shapes differ; peers' bytes were checked long before.
    """
    if state.theta_W.shape != gradient_W.shape:
        raise LocalProtocolError(f"expected a gradient of shape {state.theta_W.shape}, got {gradient_W.shape}")
    rate = np.float32(spec.rate)
    if not spec.momentum:
        return OuterState(_minus(state.theta_W, np.multiply(gradient_W, rate)))
    momentum = momentum_at(spec, epoch)
    old_W = np.zeros_like(gradient_W) if state.velocity_W is None else state.velocity_W
    velocity_W = np.add(np.multiply(old_W, momentum), gradient_W)
    ahead_W = np.add(gradient_W, np.multiply(velocity_W, momentum))
    return OuterState(_minus(state.theta_W, np.multiply(ahead_W, rate)), velocity_W)


def _minus(theta_W: Vector, step_W: Vector) -> Vector:
    result: Vector = np.subtract(theta_W, step_W)
    return result
