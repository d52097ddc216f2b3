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
from iota_p2p.validation.work_keeper import WorkKeeper
from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import WorkLog
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from tests.scoring.scenes import NOW_S
from tests.sim.training_swarms import SLOW


@pytest.mark.parametrize("merge", [None, MergeSpec()], ids=["alone", "merged"])
async def test_work_commitment__names_a_log_that_leads_from_start_to_end(
    merge: MergeSpec | None, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Two replicas of the last stage; with merges the weights change between an epoch's end and the next's start."""
    spec = small_run(tmp_path, target_microbatches=40, merge=merge)
    data = RunData(spec, ShardStore(tmp_path / "shards"))
    keepers: dict[int, WorkKeeper] = {}

    async def keep(peer: Peer, trainer: Trainer) -> None:
        keeper = keepers[len(keepers)] = WorkKeeper(peer.identity, spec.run_id)
        trainer.share.work_begun, trainer.share.work_closed = keeper.begun, keeper.closed
        trainer.share.work_stepped = keeper.stepped

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(n, pinned=(min(n, 1),), costs=SLOW, twist=keep) for n in range(3)]
        await swarm.until(lambda: all(keepers[n].kept(1, min(n, 1)) for n in range(3)))
        for number, member in enumerate(members):
            stage = min(number, 1)
            [envelope] = keepers[number].commit(1, NOW_S)
            assert keepers[number].commit(1, NOW_S) == []
            said, kept = open_signed(envelope, WorkCommitment).payload, keepers[number].kept(1, stage)
            assert kept is not None
            assert said.checkpoints == tuple(map(digest, kept.checkpoints))
            assert said.stashes == tuple(map(digest, kept.stashes))
            assert len(set(said.checkpoints)) == len(said.checkpoints) > 2
            size = state_bounds(spec, stage).weights_bytes
            assert said.theta_digest == digest(kept.checkpoints[0][-size:])
            log = WorkLog.from_bytes(kept.log.to_bytes())
            assert (log.root, len(log)) == (said.log_root, said.num_entries)
            compute = StageCompute(spec, stage, seed=spec.seed)
            compute.restore(kept.checkpoints[0])
            replay(compute, log, data, member.trainer.share.payloads.get)
            assert digest(compute.checkpoint()) == said.checkpoints[-1]


async def test_work_keeper__drops_the_oldest_beyond_its_bytes(tmp_path: Path, autojump_clock: MockClock) -> None:
    spec = small_run(tmp_path, target_microbatches=20)
    keepers: list[WorkKeeper] = []

    async def keep(peer: Peer, trainer: Trainer) -> None:
        keepers.append(WorkKeeper(peer.identity, spec.run_id, limit_bytes=1))
        trainer.share.work_begun, trainer.share.work_closed = keepers[-1].begun, keepers[-1].closed

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        await swarm.start(0, pinned=(0, 1), costs=SLOW, twist=keep)
        await swarm.until(lambda: keepers[0].kept(2, 1) is not None)
        assert keepers[0].kept(2, 0) is None
        assert keepers[0].kept(1, 1) is None
