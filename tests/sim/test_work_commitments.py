"""What a peer commits to is what it did: its log leads from the first checkpoint to the last."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
from trio.testing import MockClock

from iota_p2p.model.compute import StageCompute
from iota_p2p.peer import Peer
from iota_p2p.run.data import RunData
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.replay import replay
from iota_p2p.training.stage_state import state_bounds
from iota_p2p.training.trainer import Trainer
from iota_p2p.validation.work_keeper import MAX_KEPT_BYTES, WorkKeeper
from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.segments import MAX_SEGMENTS, segments_committed
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import WorkLog
from iota_p2p_testnet.training_swarm import Twist, open_training_swarm, small_run
from tests.scoring.scenes import NOW_S
from tests.sim.training_swarms import SLOW


def keeping(keepers: list[WorkKeeper], limit_bytes: int = MAX_KEPT_BYTES) -> Twist:
    """Give every peer a keeper of its work, in the order of their starts."""

    async def keep(peer: Peer, trainer: Trainer) -> None:
        keeper = WorkKeeper(peer.identity, trainer.share.terms.run_id, limit_bytes=limit_bytes)
        keepers.append(keeper)
        trainer.share.work_begun, trainer.share.work_closed = keeper.begun, keeper.closed
        trainer.share.work_stepped = keeper.stepped

    return keep


@pytest.mark.parametrize("merge", [None, MergeSpec()], ids=["alone", "merged"])
async def test_work_commitment__names_a_log_that_leads_from_start_to_end(
    merge: MergeSpec | None, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Two replicas of the last stage; with merges the weights change between an epoch's end and the next's start."""
    spec = small_run(tmp_path, target_microbatches=40, merge=merge)
    data = RunData(spec, ShardStore(tmp_path / "shards"))
    keepers: list[WorkKeeper] = []

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(n, pinned=(min(n, 1),), costs=SLOW, twist=keeping(keepers)) for n in range(3)]
        await swarm.until(lambda: all(keepers[n].kept(1, min(n, 1)) for n in range(3)))
        for number, member in enumerate(members):
            stage = min(number, 1)
            [envelope] = keepers[number].commit(1, NOW_S)
            assert keepers[number].commit(1, NOW_S) == []
            said, kept = open_signed(envelope, WorkCommitment).payload, keepers[number].kept(1, stage)
            assert kept is not None
            assert said.checkpoints == tuple(map(digest, kept.segments.checkpoints))
            assert said.stashes == tuple(map(digest, kept.segments.stashes))
            assert len(set(said.checkpoints)) == len(said.checkpoints) > 2
            size = state_bounds(spec, stage).weights_bytes
            assert said.theta_digest == digest(kept.segments.checkpoints[0][-size:])
            log = WorkLog.from_bytes(kept.segments.log.to_bytes())
            assert (log.root, len(log)) == (said.log_root, said.num_entries)
            compute = StageCompute(spec, stage, seed=spec.seed)
            compute.restore(kept.segments.checkpoints[0])
            replay(compute, log, data, member.trainer.share.payloads.get)
            assert digest(compute.checkpoint()) == said.checkpoints[-1]


async def test_work_keeper__drops_the_oldest_beyond_its_bytes(tmp_path: Path, autojump_clock: MockClock) -> None:
    spec = small_run(tmp_path, target_microbatches=20)
    keepers: list[WorkKeeper] = []

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        await swarm.start(0, pinned=(0, 1), costs=SLOW, twist=keeping(keepers, limit_bytes=1))
        await swarm.until(lambda: keepers[0].kept(2, 1) is not None)
        assert keepers[0].kept(2, 0) is None
        assert keepers[0].kept(1, 1) is None


async def test_work_keeper__commits_to_a_part_of_a_log_that_is_still_open(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As in a merge that takes too long: what is committed to stays, whatever the log becomes."""
    spec = small_run(tmp_path, target_microbatches=1000)
    data = RunData(spec, ShardStore(tmp_path / "shards"))
    keepers: list[WorkKeeper] = []

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        member = await swarm.start(0, pinned=(0, 1), costs=SLOW, twist=keeping(keepers))
        await swarm.until(lambda: 1 in member.trainer.share.stages)
        held, keeper = member.trainer.share.stages[1], keepers[0]
        for num_steps in (17, 30, 45):  # strides 2, 2 and 4; with 17 the last state is of step 16
            await swarm.until(lambda: held.steps_in_epoch >= num_steps)  # noqa: B023 - it waits right here
            keeper.cut(0)
            kept = keeper.kept(0, 1)
            assert kept is not None
            log, checkpoints = kept.segments.log, kept.segments.checkpoints
            assert 0 <= len(held.log) - len(log) <= len(held.log) // 4
            segments = segments_committed(log, MAX_SEGMENTS, len(checkpoints) - 1)
            assert len(segments) >= MAX_SEGMENTS // 2
            compute = StageCompute(spec, 1, seed=spec.seed)
            compute.restore(checkpoints[0])
            replay(compute, log, data, member.trainer.share.payloads.get)
            assert compute.checkpoint() == checkpoints[-1]
        assert len(keeper.commit(0, NOW_S)) == 2
        await swarm.until(lambda: held.steps_in_epoch >= 60)
        keeper.cut(0)
        held.close_epoch()
        assert keeper.kept(0, 1) is kept
        assert keeper.commit(0, NOW_S) == []


async def test_work_keeper__forgets_what_led_nowhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A newcomer that took the others' weights in the middle of an epoch begins that anew; once committed, it stays."""
    spec = small_run(tmp_path, target_microbatches=1000)
    keepers: list[WorkKeeper] = []

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        member = await swarm.start(0, pinned=(0, 1), costs=SLOW, twist=keeping(keepers))
        await swarm.until(lambda: 1 in member.trainer.share.stages)
        held, keeper = member.trainer.share.stages[1], keepers[0]
        for num_steps in (5, 9):
            await swarm.until(lambda: held.steps_in_epoch >= num_steps)  # noqa: B023 - it waits right here
            first = held.log
            held.start_epoch(0)
            assert keeper.kept(0, 1) is None
        await swarm.until(lambda: held.steps_in_epoch >= 4)
        held.close_epoch()
        kept = keeper.kept(0, 1)
        assert kept is not None
        assert kept.segments.log is held.log is not first
        assert len(keeper.commit(0, NOW_S)) == 1
        held.start_epoch(0)
        assert keeper.kept(0, 1) is kept
