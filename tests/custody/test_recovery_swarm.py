"""Whole simulated peers: a stage whose holders all die at once comes back from custodians, and goes on where it was."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.custody.recovery import Recovered
from iota_p2p.run.spec import MergeSpec
from iota_p2p_testnet.training_swarm import Costs, Member, TrainingSwarm, open_training_swarm, small_run
from tests.sim.training_swarms import mean_nats, noting_losses, offences

WITHIN_S = 15.0
EASY_S = 30.0
HARD_WORK = Costs(forward_s=0.05, backward_s=0.1, background_s=0.02)


def pushed_steps(swarm: TrainingSwarm, stage: int) -> int:
    """Return the steps of the last state of a stage that any living peer keeps."""
    listings = [member.trainer.custody.custodian.best(stage) for member in swarm.members.values()]
    return max((listing.state.num_steps for listing in listings if listing is not None), default=0)


def noting_recoveries(members: Sequence[Member]) -> list[Recovered]:
    recovered: list[Recovered] = []
    for member in members:
        member.trainer.custody.recovery.on_recovered = recovered.append
    return recovered


@pytest.mark.parametrize("seed", [0, *[pytest.param(s, marks=pytest.mark.slow) for s in range(1, 6)]])
async def test_stage__back_at_its_last_pushed_state_when_all_its_holders_die_at_once(
    seed: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(seed, spec, tmp_path) as swarm:
        members = [await swarm.start(number, costs=HARD_WORK) for number in range(4)]
        recovered = noting_recoveries(members)
        with noting_losses(*members) as losses:
            await swarm.until(lambda: swarm.all_served and len(losses) > 20, 30)
            stage = 1
            await swarm.until(lambda: pushed_steps(swarm, stage) > 2, 30)
            await trio.sleep(1 + seed)
            victims = swarm.holders(stage)
            for victim in victims:
                swarm.crash(victim)
            pushed, killed_s = pushed_steps(swarm, stage), trio.current_time()
            assert not swarm.holders(stage)
            recovered.clear()
            await swarm.until(lambda: swarm.all_served, WITHIN_S)
            assert trio.current_time() - killed_s < WITHIN_S
            (again,) = [recovery for recovery in recovered if recovery.stage == stage]
            assert (again.kind, again.num_steps) == ("custodians", pushed)
            assert again.seconds < WITHIN_S
            so_far = len(losses)
            await swarm.until(lambda: len(losses) > so_far + 20, 30)
            assert mean_nats(losses[-20:]) < mean_nats(losses[:20]) - 0.5
            assert offences(swarm) == {}


@pytest.mark.parametrize("seed", [0, *[pytest.param(s, marks=pytest.mark.slow) for s in range(1, 4)]])
async def test_stage__back_in_the_epoch_of_its_last_merge_and_merges_again(
    seed: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    spec = small_run(tmp_path, merge=MergeSpec(), target_microbatches=20)
    async with open_training_swarm(seed, spec, tmp_path) as swarm:
        for number in range(2):
            await swarm.start(number, pinned=(0,), costs=HARD_WORK)
        holders = [await swarm.start(number, pinned=(1,), costs=HARD_WORK) for number in (2, 3)]
        await swarm.until(lambda: swarm.all_served and holders[0].trainer.share.stages[1].epoch >= 2, 60)
        await trio.sleep(2)  # so that the new epoch's state is pushed
        for victim in holders:
            swarm.crash(victim)
        pushed = pushed_steps(swarm, 1)
        again = [await swarm.start(number, pinned=(1,), costs=HARD_WORK) for number in (4, 5)]
        recovered = noting_recoveries(again)
        await swarm.until(lambda: swarm.all_served, WITHIN_S)
        assert (recovered[0].kind, recovered[0].num_steps) == ("custodians", pushed)
        assert recovered[0].epoch >= 2
        await swarm.until(lambda: len(swarm.holders(1)) == 2, EASY_S)
        before = max(member.trainer.share.epoch for member in swarm.members.values())
        stages = [member.trainer.share.stages[1] for member in again]
        await swarm.until(lambda: stages[0].epoch == stages[1].epoch >= before + 2, 60)
        assert stages[0].base_digest == stages[1].base_digest
        assert offences(swarm) == {}
