"""Small swarms whose peers are pinned to stages: liars among custodians, damaged disks, and what travels per epoch."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.custody.pusher import PUSH_AFTER_S, PUSH_EVERY_S
from iota_p2p_protocols import state_manifest
from iota_p2p_testnet.adversaries import serve_wrong_chunks
from iota_p2p_testnet.training_swarm import Costs, Member, TrainingSwarm, open_training_swarm, small_run
from tests.custody.test_recovery_swarm import noting_recoveries, pushed_steps
from tests.sim.training_swarms import offences

HARD_WORK = Costs(forward_s=0.05, backward_s=0.1, background_s=0.02)
EASY = 30.0


async def trained_and_pushed(swarm: TrainingSwarm, *, liars: int = 0) -> list[Member]:
    """Start peer 1 alone on stage 1 and three on stage 0, the last of which lie about chunks."""
    members = [await swarm.start(0, pinned=(0,), costs=HARD_WORK), await swarm.start(1, pinned=(1,), costs=HARD_WORK)]
    for number in (2, 3):
        twist = serve_wrong_chunks if number > 3 - liars else None
        members.append(await swarm.start(number, pinned=(0,), costs=HARD_WORK, twist=twist))
    await swarm.until(lambda: pushed_steps(swarm, 1) > 1, EASY)
    await trio.sleep(2)  # to all custodians
    return members


@pytest.mark.parametrize("liars", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_wrong_chunks_of_custodians__are_charged_and_fetched_elsewhere(
    liars: int, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_manifest, "CHUNK_BYTES", 8 * 1024)
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = await trained_and_pushed(swarm, liars=liars)
        swarm.crash(members[1])
        pushed = pushed_steps(swarm, 1)
        joiner = await swarm.start(4, pinned=(1,), costs=HARD_WORK)
        recovered = noting_recoveries([joiner])
        await swarm.until(lambda: swarm.all_served, EASY)
        assert [(one.kind, one.num_steps) for one in recovered] == [("custodians", pushed)]
        assert offences(swarm).keys() == set(range(4 - liars, 4))
        assert all(rules.keys() == {"chunk-digest"} for rules in offences(swarm).values())


async def test_killed_peer__back_with_its_identity_and_the_better_of_its_disk_and_its_custodians(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A saved state that is older than the one pushed, and then one that is damaged, gives way to the custodians'."""
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = await trained_and_pushed(swarm)
        await members[1].trainer.save()
        saved = members[1].trainer.share.stages[1].compute.num_steps
        assert saved > pushed_steps(swarm, 1)
        swarm.crash(members[1])
        again = await swarm.start(1, pinned=(1,), costs=HARD_WORK)
        assert again.peer.identity.peer_id == members[1].peer.identity.peer_id
        recovered = noting_recoveries([again])
        await swarm.until(lambda: swarm.all_served, EASY)
        assert [(one.kind, one.num_steps) for one in recovered] == [("own-disk", saved)]
        await swarm.until(lambda: pushed_steps(swarm, 1) > saved, EASY)
        path = again.trainer.files.folder / "stage-001.state"
        swarm.crash(again)
        pushed = pushed_steps(swarm, 1)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        third = await swarm.start(1, pinned=(1,), costs=HARD_WORK)
        recovered = noting_recoveries([third])
        await swarm.until(lambda: swarm.all_served, EASY)
        assert [(one.kind, one.num_steps) for one in recovered] == [("custodians", pushed)]
        assert path.with_suffix(".damaged").exists()
        assert offences(swarm) == {}


@pytest.mark.slow
async def test_pushes__follow_epochs_and_time_and_stop_when_nothing_changes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Per epoch, each custodian gets one state, and more of them while the stage is young."""
    spec = small_run(tmp_path, target_microbatches=40)
    pushes: list[tuple[int, int, int]] = []
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = await trained_and_pushed(swarm)
        holder = members[1].trainer
        holder.custody.pusher.on_push = lambda stage, _, size: pushes.append((holder.share.epoch, stage, size))
        began_s, epoch = trio.current_time(), holder.share.epoch
        await swarm.until(lambda: holder.share.epoch >= epoch + 3, 60)
        await trio.sleep(2)
        elapsed_s = trio.current_time() - began_s
        assert {one[0] for one in pushes} >= {epoch + 1, epoch + 2, epoch + 3}, "each new epoch is pushed at once"
        num_states = 3 + elapsed_s / PUSH_AFTER_S
        assert len(pushes) <= 3 * (num_states + 1)
        for member in members:
            member.trainer.source.paused = True
        await trio.sleep(2 * PUSH_EVERY_S)
        pushes.clear()
        await trio.sleep(2 * PUSH_EVERY_S)
        assert pushes == []
