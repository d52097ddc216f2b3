"""Codes: sizes, errors, and what hostile bytes can and cannot do."""

import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.model.boundary.codes import (
    MAX_MAGNITUDE,
    Code,
    DivergedError,
    GridCode,
    RawCode,
    ScaledCode,
)
from iota_p2p.model.boundary.kinds import boundary_of
from iota_p2p_crypto.errors import MalformedError
from tests.numerics.pipelines import BOUNDARIES, make_plan

CODES: tuple[Code, ...] = (
    RawCode(torch.float32),
    RawCode(torch.bfloat16),
    GridCode(8),
    GridCode(4),
    ScaledCode(8),
    ScaledCode(4),
)
SHAPE = (2, 3, 5)


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7)])
@given(st.lists(st.floats(-60_000, 60_000, width=32), min_size=30, max_size=30))
def test_scaled_code__errs_by_less_than_a_step(bits: int, levels: int, numbers: list[float]) -> None:
    values = torch.tensor(numbers).view(SHAPE)
    code = ScaledCode(bits)
    decoded = code.decode(code.encode(values), SHAPE)
    peaks = values.abs().amax(dim=-1, keepdim=True)
    # Half a step, of a scale up to 19 % above the peak; the smallest and largest scales are 4e-15 and 55,000.
    bound = (peaks * 1.19 * 0.5 / levels + 4e-15).maximum(peaks - 55_108 + 55_109 * 0.5 / levels)
    assert bool(((decoded - values).abs() <= bound).all())


def test_float32_code__is_exact() -> None:
    values = torch.randn(SHAPE)
    code = RawCode(torch.float32)
    assert torch.equal(code.decode(code.encode(values), SHAPE), values)


def test_grid_code__gives_every_code_back() -> None:
    codes = torch.arange(-7, 8).float().view(1, 3, 5) / 7
    assert torch.equal(GridCode(4).decode(GridCode(4).encode(codes), (1, 3, 5)), codes)


@pytest.mark.parametrize("code", CODES[2:])
@given(st.data())
def test_quantised_codes__decode_any_bytes_to_bounded_numbers(code: Code, data: st.DataObject) -> None:
    size = 6 * code.bytes_per_token(5)
    values = code.decode(data.draw(st.binary(min_size=size, max_size=size)), SHAPE)
    assert values.shape == SHAPE
    assert bool((values.abs() <= MAX_MAGNITUDE).all())


@pytest.mark.parametrize("code", CODES[:2])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e9])
def test_raw_codes__refuse_numbers_out_of_range(code: Code, poison: float) -> None:
    one = struct.pack("<f", poison)[-code.bytes_per_token(1) :]
    data = one + bytes(30 * code.bytes_per_token(1) - len(one))
    with pytest.raises(MalformedError) as caught:
        code.decode(data, SHAPE)
    assert caught.value.rule == "boundary-range"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("extra", [-1, 1])
def test_codes__refuse_another_length(code: Code, extra: int) -> None:
    with pytest.raises(MalformedError) as caught:
        code.decode(bytes(6 * code.bytes_per_token(5) + extra), SHAPE)
    assert caught.value.rule == "boundary-length"


@pytest.mark.parametrize("code", CODES)
def test_codes__write_each_position_by_itself(code: Code) -> None:
    """A number far larger than all others changes the bytes of its own position and no other."""
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    spiked = values.clone()
    spiked[1, 1, 2] = 1000
    size = code.bytes_per_token(5)
    before, after = code.encode(values), code.encode(spiked)
    changed = {index // size for index in range(len(before)) if before[index] != after[index]}
    assert changed == {4}


@pytest.mark.parametrize("code", CODES)
def test_codes__send_what_the_receiver_accepts_however_large(code: Code) -> None:
    values = code.decode(code.encode(torch.full(SHAPE, -1e30)), SHAPE)
    assert bool((values < -0.9).all())


@pytest.mark.parametrize("code", CODES)
def test_codes__refuse_to_send_what_is_not_finite(code: Code) -> None:
    values = torch.zeros(SHAPE)
    values[0, 0, 0] = torch.nan
    with pytest.raises(DivergedError):
        code.encode(values)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_boundary__sends_exactly_the_bytes_it_states(boundary: str) -> None:
    plan = make_plan(boundary)
    joint = boundary_of(plan.model, plan.boundary)
    values = torch.zeros(2, 16, joint.message_width)
    sent = (len(joint.forward_code.encode(values)), len(joint.backward_code.encode(values)))
    assert sent == tuple(32 * size for size in joint.bytes_per_token())


def test_subspace__compresses_128_times_both_ways_at_a_quarter_of_a_byte_per_channel() -> None:
    plan = make_plan("subspace:7:8")
    model = plan.model.model_copy(update={"width": 256})
    assert boundary_of(model, plan.boundary).ratios() == (128, 128)
