"""The outer step: plain averaging, Nesterov as torch has it, and the same bytes for the same inputs."""

import hashlib
from decimal import Decimal

import numpy as np
import pytest
import torch

from iota_p2p.merge.outer_step import OuterState, Vector, momentum_at, outer_step
from iota_p2p.run.spec import MergeSpec
from iota_p2p_crypto.errors import LocalProtocolError


def vector(seed: int, size: int = 1000) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def test_plain_step__is_the_mean_of_the_local_weights() -> None:
    theta, locals_ = vector(0), [vector(1), vector(2)]
    gradient = np.mean([theta - local for local in locals_], axis=0)
    after = outer_step(OuterState(theta), gradient, MergeSpec(), epoch=3)
    np.testing.assert_allclose(after.theta_W, np.mean(locals_, axis=0), atol=1e-6)
    assert after.velocity_W is None


def test_plain_step__leaves_weights_alone_where_a_shard_was_lost() -> None:
    theta, gradient = vector(0), vector(1)
    gradient[100:200] = 0
    assert np.array_equal(outer_step(OuterState(theta), gradient, MergeSpec(), 0).theta_W[100:200], theta[100:200])


def test_nesterov__equals_torch_over_many_epochs() -> None:
    spec = MergeSpec(rate=Decimal("0.7"), momentum=Decimal("0.9"), first_momentum=Decimal("0.9"))
    state = OuterState(vector(0))
    parameter = torch.nn.Parameter(torch.from_numpy(vector(0)))
    optimizer = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    for epoch in range(10):
        gradient = vector(epoch + 1)
        state = outer_step(state, gradient, spec, epoch)
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    np.testing.assert_allclose(state.theta_W, parameter.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_momentum__rises_to_its_end_and_stays_there() -> None:
    spec = MergeSpec(momentum=Decimal("0.9"), first_momentum=Decimal("0.5"), momentum_warmup_epochs=20)
    assert [round(float(momentum_at(spec, epoch)), 6) for epoch in (0, 10, 20, 500)] == [0.5, 0.7, 0.9, 0.9]


def test_step__gives_the_same_bytes_on_every_replica() -> None:
    """A golden digest: another platform that rounds differently fails here, not in the field."""
    spec = MergeSpec(rate=Decimal("0.7"), momentum=Decimal("0.9"), first_momentum=Decimal("0.5"))
    state = OuterState(np.arange(-500, 500, dtype=np.float32) / np.float32(7))
    for epoch in range(5):
        gradient = np.arange(1000, dtype=np.float32) / np.float32(11 + epoch)
        state = outer_step(state, gradient, spec, epoch)
    assert hash_of(state) == "9e1125d451e7652b"


def hash_of(state: OuterState) -> str:
    assert state.velocity_W is not None
    return hashlib.sha256(state.theta_W.tobytes() + state.velocity_W.tobytes()).hexdigest()[:16]


def test_step__refuses_another_shape() -> None:
    with pytest.raises(LocalProtocolError, match="shape"):
        outer_step(OuterState(vector(0)), vector(0, 999), MergeSpec(), 0)
