"""Training goes on whatever happens to the peers, and goes the same way again."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
import trio
from _pytest.mark import ParameterSet
from trio.testing import MockClock

from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from tests.sim.training_swarms import SLOW, Loss, drained, kill_now_and_then, mean_nats, noting_losses, offences, total


def train_once(seed: int, folder: Path, seconds: float) -> list[Loss]:
    """Four peers choose among three stages; return every loss record's content, in order of coming home."""

    async def train() -> list[Loss]:
        spec = small_run(folder, num_stages=3, target_microbatches=25)
        async with open_training_swarm(seed, spec, folder) as swarm:
            members = [await swarm.start(number, costs=SLOW) for number in range(4)]
            with noting_losses(*members) as losses:
                await trio.sleep(seconds)
        return losses

    return trio.run(train, clock=MockClock(autojump_threshold=0))


def test_training__repeats_to_the_last_micronat_with_one_seed(tmp_path: Path) -> None:
    """Two event loops, whose schedulers shuffle differently, through two epochs; another seed differs."""
    losses = train_once(1, tmp_path / "once", 9)
    assert max(losses)[0] >= 1
    assert train_once(1, tmp_path / "again", 9) == losses
    assert train_once(2, tmp_path / "other", 4)[:10] != losses[:10]


async def test_swarm__grows_from_one_peer_and_outlives_the_dead(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A lone peer trains all; joiners fetch and take over; the dead are replaced; the loss falls all the while."""
    spec = small_run(tmp_path, num_stages=3)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        first = await swarm.start(0, costs=SLOW)
        with noting_losses(first) as losses:
            await swarm.until(lambda: len(losses) > 20)
            assert sorted(first.trainer.share.stages) == [0, 1, 2]
            steps = first.trainer.share.stages[2].compute.num_steps
            second, third = [await swarm.start(number, costs=SLOW) for number in (1, 2)]
            await swarm.until(lambda: bool(second.trainer.share.stages and third.trainer.share.stages))
            fetched = [s for m in (second, third) for s in m.trainer.share.stages.values()]
            assert all(stage.compute.num_steps >= steps // 2 for stage in fetched)
            while len(first.trainer.share.stages) == 3:
                assert swarm.all_served
                await trio.sleep(0.1)
            await trio.sleep(5)
            assert swarm.all_served
            swarm.crash(third)
            await swarm.until(lambda: swarm.all_served)
            before = total(swarm, "completed")
            await swarm.until(lambda: total(swarm, "completed") > before + 20)
            assert swarm.all_served
            assert total(swarm, "lost") == 0
            assert mean_nats(losses[-20:]) < mean_nats(losses[:20]) - 1
            assert offences(swarm) == {}


def slow(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("seed", "pinned"), [(0, True), (0, False), *(slow(seed, way) for seed in range(1, 9) for way in (True, False))]
)
async def test_killing__loses_no_microbatch_of_those_who_live(
    seed: int, *, pinned: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Six peers for three stages; at any moment one dies that is not a stage's last, through two epochs and more."""
    spec = small_run(tmp_path, num_stages=3, target_microbatches=40)
    async with open_training_swarm(seed, spec, tmp_path) as swarm:
        members = [
            await swarm.start(number, pinned=(number % 3,) if pinned else None, costs=SLOW) for number in range(6)
        ]
        with noting_losses(*members) as losses:
            await swarm.until(lambda: len(losses) > 10 and all(member.trainer.share.stages for member in members))
            assert await kill_now_and_then(swarm, seed, 5, losses) >= 3
            await swarm.until(lambda: max(losses)[0] >= 1)
            await trio.sleep(3)
            await drained(swarm)
            assert total(swarm, "lost") == 0
            assert total(swarm, "completed") == total(swarm, "sent") > 10
            assert offences(swarm) == {}
            assert mean_nats(losses[-10:]) < mean_nats(losses[:10]) - 1
