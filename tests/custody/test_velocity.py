"""The outer momentum's memory survives whatever a stage comes back from."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from decimal import Decimal
from pathlib import Path

import numpy as np
from trio.testing import MockClock

from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.record import MergeRecord
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.stage_state import check_state, freeze, state_bounds, velocity_in
from iota_p2p_testnet.training_swarm import Member, TrainingSwarm, open_training_swarm, small_run
from tests.sim.training_swarms import SLOW

MOMENTUM = MergeSpec(rate=Decimal("0.7"), momentum=Decimal("0.5"), first_momentum=Decimal("0.5"))


async def trained(swarm: TrainingSwarm) -> Member:
    """Start two peers with a stage each; return the second one when it has gone through two epochs."""
    members = [await swarm.start(number, pinned=(number,), costs=SLOW) for number in (0, 1)]
    await swarm.until(lambda: swarm.all_served and held(members[1]).epoch >= 2, 120)
    return members[1]


def held(member: Member) -> HeldStage:
    return member.trainer.share.stages[1]


async def test_velocity__is_there_after_a_restart_from_our_own_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    """And in what a holder freezes for others: with moments, in the bounds, accepted."""
    spec = small_run(tmp_path, num_stages=2, merge=MOMENTUM, target_microbatches=20)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        member = await trained(swarm)
        before = held(member).velocity
        assert before is not None
        assert before.any()
        state = freeze(held(member))
        check_state(state, spec)
        assert len(state.checkpoint) < state_bounds(spec, 1).max_bytes
        found = velocity_in(state)
        assert found is not None
        np.testing.assert_array_equal(found, before)
        await swarm.stop(member)
        again = await swarm.start(1, pinned=(1,), costs=SLOW)
        await swarm.until(lambda: 1 in again.trainer.share.stages, 60)
        base = held(again).base
    assert base is not None
    assert base.velocity_W is not None
    np.testing.assert_array_equal(base.velocity_W, before)


async def test_velocity__is_kept_when_a_stage_looks_for_its_base_and_finds_nobody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As one that took the state of a replica that died before it gave its base, or one that was overruled."""
    spec = small_run(tmp_path, num_stages=2, merge=MOMENTUM, target_microbatches=20)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        member = await trained(swarm)
        stage, told = held(member), list[MergeRecord]()
        known: list[Vector | None] = []

        def tell(record: MergeRecord) -> None:
            told.append(record)
            if len(told) == 1:
                known.append(stage.velocity)
                stage.forget_base()
            elif len(told) == 2:
                known.append(stage.velocity)

        assert member.trainer.merger is not None
        member.trainer.merger.on_merged = tell
        await swarm.until(lambda: len(told) >= 2, 60)
    before, after = known
    assert [record.how for record in told[:2]] == ["alone", "alone"]
    assert told[0].epoch == told[1].epoch  # it did not go on, it looked in vain
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after, before)
