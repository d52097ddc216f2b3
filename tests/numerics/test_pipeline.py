"""A pipeline trains the same model as one process, bit for bit, and replays to the same bits."""

import pytest
import torch

from iota_p2p.model.boundary.codes import DivergedError
from iota_p2p.model.compute import StageCompute
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError
from tests.numerics.pipelines import BOUNDARIES, SEED, backward, forward, make_plan, make_stages, make_window


def weights_of(stages: list[StageCompute]) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for stage in stages for name, p in stage.stage.named_parameters()}


def train(stages: list[StageCompute], *, steps: int, microbatches: int = 2) -> list[float]:
    losses = []
    for step in range(steps):
        for number in range(microbatches):
            held = forward(stages, make_window(step * microbatches + number))
            backward(stages, held)
            losses.append(held[-1].loss)
        for stage in stages:
            stage.step(microbatches)
    return [loss for loss in losses if loss is not None]


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name, value in left.items() if not torch.equal(value, right[name])]
    assert different == []


def test_initial_weights__do_not_depend_on_the_cuts() -> None:
    assert_same(weights_of(make_stages(make_plan())), weights_of(make_stages(make_plan(cuts=()))))


def test_pipeline__equals_one_process_bit_for_bit_without_compression() -> None:
    one, four = make_stages(make_plan(cuts=())), make_stages(make_plan())
    assert train(four, steps=4) == train(one, steps=4)
    assert_same(weights_of(four), weights_of(one))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_pipeline__repeats_to_the_same_bits(boundary: str) -> None:
    first, second = make_stages(make_plan(boundary)), make_stages(make_plan(boundary))
    assert train(first, steps=2) == train(second, steps=2)
    assert_same(weights_of(first), weights_of(second))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_pipeline__gives_every_weight_a_gradient(boundary: str) -> None:
    stages = make_stages(make_plan(boundary))
    backward(stages, forward(stages, make_window()))
    parameters = [item for stage in stages for item in stage.stage.named_parameters()]
    assert [name for name, p in parameters if p.grad is None or not bool(p.grad.any())] == []


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_pipeline__learns_one_microbatch(boundary: str) -> None:
    stages = make_stages(make_plan(boundary))
    window = make_window()
    for _ in range(25):
        held = forward(stages, window)
        backward(stages, held)
        for stage in stages:
            stage.step(1)
    loss = forward(stages, window)[-1].loss
    assert loss is not None
    assert loss < 2.5  # nats; it started at ln 50 = 3.9, and the narrowest remember least


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_message__does_not_know_the_future(boundary: str) -> None:
    """Changing the tokens from t+1 on changes no transmitted byte of positions up to t."""
    stages = make_stages(make_plan(boundary))
    train(stages, steps=1)
    window = make_window(size=1)
    changed = window.clone()
    changed[0, 9:] = (changed[0, 9:] + 1) % 50
    before, after = forward(stages, window), forward(stages, changed)
    for left, right in zip(before[:-1], after[:-1], strict=True):
        assert left.payload is not None
        assert right.payload is not None
        past = len(left.payload) // 16 * 9
        assert left.payload[:past] == right.payload[:past]
        assert left.payload[past:] != right.payload[past:]


def test_microbatches__are_independent_of_their_neighbours_in_the_batch() -> None:
    """No byte about one sequence depends on the other sequences of its microbatch."""
    stages = make_stages(make_plan("subspace:4:8"))
    window = make_window()
    changed = window.clone()
    changed[1] = (changed[1] + 1) % 50
    left, right = forward(stages, window)[0].payload, forward(stages, changed)[0].payload
    assert left is not None
    assert right is not None
    assert left[: len(left) // 2] == right[: len(right) // 2]


GRADIENT = torch.linspace(-1, 1, 2 * 16 * 32).numpy().tobytes()


@pytest.mark.parametrize("num_steps", [1, 2])
def test_backward__goes_through_the_weights_of_its_forward_whatever_steps_came_since(num_steps: int) -> None:
    late, early = (StageCompute(make_plan(), 0, seed=SEED) for _ in range(2))
    held = late.forward(make_window(1))
    for number in range(num_steps):
        late.backward(late.forward(make_window(number + 2)), GRADIENT)
        late.step(1)
    late.backward(held, GRADIENT)
    early.backward(early.forward(make_window(1)), GRADIENT)
    assert_same(gradients_of(late), gradients_of(early))
    late.backward(late.forward(make_window(1)), GRADIENT)
    early.backward(early.forward(make_window(1)), GRADIENT)
    with pytest.raises(AssertionError):  # the weights did move on
        assert_same(gradients_of(late), gradients_of(early))


def test_backward__runs_again_with_present_weights_when_they_were_replaced() -> None:
    late, early = (StageCompute(make_plan(), 0, seed=SEED) for _ in range(2))
    held = late.forward(make_window(1))
    for compute in (late, early):
        for parameter in compute.stage.parameters():
            parameter.data.mul_(1.5)
        compute.weights_changed()
    late.backward(held, GRADIENT)
    early.backward(early.forward(make_window(1)), GRADIENT)
    assert_same(gradients_of(late), gradients_of(early))


def gradients_of(compute: StageCompute) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in compute.stage.named_parameters() if p.grad is not None}


def test_evaluate__gives_the_bytes_of_forward() -> None:
    compute = StageCompute(make_plan("anchored:4:8"), 0, seed=SEED)
    assert compute.evaluate(make_window()).payload == compute.forward(make_window()).payload


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_stage__survives_the_largest_numbers_a_neighbour_can_send(boundary: str) -> None:
    """Every bit of a quantised message set, or the largest float32 or bfloat16 in range, everywhere."""
    compute = StageCompute(make_plan(boundary), 1, seed=SEED)
    joint = compute.stage.boundary
    largest = torch.full((2, 16, joint.message_width), 1e9)
    held = compute.forward(make_window(), joint.forward_code.encode(largest))
    compute.backward(held, joint.backward_code.encode(largest))
    compute.step(1)
    assert all(bool(p.isfinite().all()) for p in compute.stage.parameters())


def test_forward__refuses_a_payload_of_the_wrong_length() -> None:
    compute = StageCompute(make_plan("subspace:4:8"), 1, seed=SEED)
    with pytest.raises(MalformedError, match="160 bytes") as caught:
        compute.forward(make_window(), bytes(161))
    assert caught.value.rule == "boundary-length"


def test_backward__adds_nothing_when_the_gradient_is_malformed() -> None:
    compute = StageCompute(make_plan("subspace:4:8"), 0, seed=SEED)
    with pytest.raises(MalformedError):
        compute.backward(compute.forward(make_window()), bytes(3))
    assert gradients_of(compute) == {}


def test_forward__crashes_on_our_own_mistake_when_a_message_is_missing() -> None:
    with pytest.raises(LocalProtocolError, match="message from the previous stage"):
        StageCompute(make_plan(), 1, seed=SEED).forward(make_window())


def test_forward__says_diverged_when_weights_are_not_finite() -> None:
    compute = StageCompute(make_plan(), 0, seed=SEED)
    with torch.no_grad():
        next(compute.stage.parameters()).fill_(torch.inf)
    with pytest.raises(DivergedError):
        compute.forward(make_window())
