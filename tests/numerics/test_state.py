"""A stage's state: there and back, and refusing what is not one."""

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.model.figures import meta_stage
from iota_p2p.model.stage import Stage
from iota_p2p.model.state import from_bytes, set_vector, shapes_of, to_bytes, vector_of
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError
from tests.numerics.pipelines import SEED, make_plan

PLAN = make_plan("anchored:4:8")


def test_state__comes_back_and_has_equal_bytes() -> None:
    stage = Stage(PLAN, 1, seed=SEED)
    data = to_bytes(dict(stage.named_parameters()))
    tensors = from_bytes(data, shapes_of(meta_stage(PLAN, 1)))
    assert all(torch.equal(tensors[name], p) for name, p in stage.named_parameters())
    assert to_bytes(dict(reversed(tensors.items()))) == data


@pytest.mark.parametrize(
    ("tensors", "rule"),
    [
        ({"a": torch.zeros(2), "b": torch.zeros(1)}, "state-names"),
        ({}, "state-names"),
        ({"a": torch.zeros(3)}, "state-shape"),
        ({"a": torch.zeros(2, dtype=torch.float64)}, "state-shape"),
        ({"a": torch.tensor([0.0, torch.nan])}, "state-range"),
    ],
)
def test_state__refuses_what_the_stage_does_not_have(tensors: dict[str, torch.Tensor], rule: str) -> None:
    with pytest.raises(MalformedError) as caught:
        from_bytes(safetensors.torch.save(tensors), {"a": torch.Size([2])})
    assert caught.value.rule == rule


@given(st.binary(max_size=64))
def test_state__refuses_any_other_bytes(data: bytes) -> None:
    with pytest.raises(MalformedError):
        from_bytes(data, {"a": torch.Size([2])})


def test_vector__comes_back() -> None:
    source, target = Stage(PLAN, 2, seed=1), Stage(PLAN, 2, seed=2)
    set_vector(target, vector_of(source))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_vector__is_in_the_order_of_names() -> None:
    stage = Stage(PLAN, 2, seed=1)
    first = min(dict(stage.named_parameters()))
    weights = dict(stage.named_parameters())[first].numpy(force=True).ravel()
    assert np.array_equal(vector_of(stage)[: weights.size], weights)


def test_set_vector__refuses_another_length() -> None:
    stage = Stage(PLAN, 2, seed=1)
    with pytest.raises(LocalProtocolError):
        set_vector(stage, vector_of(stage)[:-1])
