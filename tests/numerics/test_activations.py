"""The activations that `run show` states are those that autograd keeps."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from iota_p2p.model.activations import activation_bytes, kept_bytes
from iota_p2p.model.stage import Stage, loss_of
from tests.numerics.pipelines import SEED, make_plan


@pytest.mark.parametrize("boundary", ["none:0:8", "subspace:4:8", "anchored:4:8"])
@pytest.mark.parametrize("index", [0, 1, 3])
def test_activation_bytes__are_what_a_real_pass_keeps(boundary: str, index: int) -> None:
    plan = make_plan(boundary)
    stage = Stage(plan, index, seed=SEED)
    window = torch.zeros(plan.epoch.microbatch_size, plan.model.sequence_length + 1, dtype=torch.int64)
    tokens = window[:, :-1]
    message = None if stage.is_first else torch.zeros(stage.boundary.message_shape(tokens), requires_grad=True)
    own = {tensor.data_ptr() for tensor in (*stage.parameters(), *stage.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = stage(tokens, message)
        if stage.is_last:
            loss_of(output, window[:, 1:])
    real = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)
    assert activation_bytes(plan, index) == real
    assert kept_bytes(plan, index, FakeTensorMode()) == pytest.approx(real, rel=0.05)
