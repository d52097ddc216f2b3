"""What a stage's replicas began an epoch with, as a state: smaller than all of it, and with the outer momentum."""

from decimal import Decimal

import numpy as np
import pytest

from iota_p2p.merge.outer_step import OuterState
from iota_p2p.model.compute import StageCompute
from iota_p2p.model.state import vector_of
from iota_p2p.run.spec import MergeSpec, RunPlan
from iota_p2p.training.stage_state import Settled, check_state, state_bounds, velocity_in
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_testnet.training_swarm import small_plan

PLAN = small_plan(merge=MergeSpec(rate=Decimal("0.7"), momentum=Decimal("0.9")))
PLAIN = small_plan(merge=MergeSpec())
STAGE, STEPS = 1, 40
CERTIFICATE = digest(b"certificate")


def settled(plan: RunPlan, *, velocity: bool) -> tuple[StageCompute, Settled]:
    compute = StageCompute(plan, STAGE, seed=3)
    theta = vector_of(compute.stage)
    state = OuterState(theta, 0.5 * theta if velocity else None)
    return compute, Settled(STAGE, 7, STEPS, state, CERTIFICATE)


def test_state__holds_weights_and_velocity_and_no_moments() -> None:
    compute, of = settled(PLAN, velocity=True)
    state = of.state(PLAN)
    check_state(state, PLAN)
    assert (state.epoch, state.num_steps, state.certificate) == (7, STEPS, CERTIFICATE)
    bounds = state_bounds(PLAN, STAGE)
    assert state.checkpoint[-bounds.weights_bytes :] == of.base.theta_W.tobytes()
    assert 2 * bounds.weights_bytes < len(state.checkpoint) < bounds.max_bytes
    velocity = velocity_in(state)
    assert velocity is not None
    np.testing.assert_array_equal(velocity, of.base.velocity_W)
    again = StageCompute(PLAN, STAGE, seed=4)
    again.restore(state.checkpoint)
    np.testing.assert_array_equal(vector_of(again.stage), vector_of(compute.stage))
    assert again.num_steps == STEPS


def test_state__without_momentum_is_a_third_of_the_whole() -> None:
    _, of = settled(PLAIN, velocity=False)
    state = of.state(PLAIN)
    check_state(state, PLAIN)
    assert velocity_in(state) is None
    assert len(state.checkpoint) < 0.4 * state_bounds(PLAIN, STAGE).max_bytes


def test_state__refused_with_a_velocity_where_the_run_has_none_or_another_size() -> None:
    _, of = settled(PLAN, velocity=True)
    whole = of.state(PLAN)
    with pytest.raises(MalformedError) as caught:
        check_state(whole, PLAIN)
    assert caught.value.rule == "state-names"
    short = Settled(STAGE, 7, STEPS, OuterState(of.base.theta_W, of.base.theta_W[:-1]), None).state(PLAN)
    with pytest.raises(MalformedError) as caught:
        check_state(short, PLAN)
    assert caught.value.rule == "state-shape"
    bad = Settled(STAGE, 7, STEPS, OuterState(of.base.theta_W, np.full_like(of.base.theta_W, np.nan)), None)
    with pytest.raises(MalformedError) as caught:
        check_state(bad.state(PLAN), PLAN)
    assert caught.value.rule == "state-range"
