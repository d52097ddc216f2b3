"""Replicas that train become one model at the end of every epoch."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.merge.record import MergeRecord
from iota_p2p.run.spec import MergeSpec
from iota_p2p_testnet.training_swarm import Member, TrainingSwarm, open_training_swarm, small_run
from tests.sim.training_swarms import SLOW


def note_merges(member: Member) -> list[MergeRecord]:
    """Collect what becomes of a peer's stages."""
    records: list[MergeRecord] = []
    assert member.trainer.merger is not None
    member.trainer.merger.on_merged = records.append
    return records


async def epochs_of(swarm: TrainingSwarm, count: int) -> None:
    def reached() -> bool:
        held = [list(member.trainer.share.stages.values()) for member in swarm.members.values()]
        return all(stages and all(stage.epoch >= count for stage in stages) for stages in held)

    await swarm.until(reached, 600)


async def test_replicas__end_every_epoch_with_equal_weights(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Two replicas of each of two stages, five epochs: the same bytes each time, from both, and merged, not fetched."""
    spec = small_run(tmp_path, num_stages=2, merge=MergeSpec(), target_microbatches=30)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(number, pinned=(number % 2,), costs=SLOW) for number in range(4)]
        records = [note_merges(member) for member in members]
        await epochs_of(swarm, 5)
    for one, other in ((records[0], records[2]), (records[1], records[3])):
        by_epoch = {record.epoch: record for record in other}
        assert by_epoch.keys() >= {1, 2, 3, 4}
        for record in one[:4]:
            assert record.theta_digest == by_epoch[record.epoch].theta_digest
            assert (record.how, record.lost_shards, len(record.members)) == ("merged", 0, 2)


@pytest.mark.slow
async def test_replicas__end_every_epoch_with_equal_weights_in_a_grid(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Seven replicas of a stage of which a roster takes three: each epoch they meet in three rows, drawn anew."""
    spec = small_run(tmp_path, num_stages=2, merge=MergeSpec(most_in_a_roster=3), target_microbatches=140)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(number, pinned=(min(number, 1),), costs=SLOW) for number in range(8)]
        records = [note_merges(member) for member in members]
        await epochs_of(swarm, 2)
        await trio.sleep(1)  # a stage is in its epoch a little before it tells
    replicas = [member.peer.identity.peer_id for member in members[1:]]
    for epoch in (1, 2):
        of_it = [record for one in records[1:] for record in one if record.epoch == epoch]
        assert [(record.how, sorted(record.members)) for record in of_it] == [("merged", sorted(replicas))] * 7
        assert len({record.theta_digest for record in of_it}) == 1
        assert len({record.roster for record in of_it}) == 3


def merge_once(folder: Path) -> list[tuple[int, float, MergeRecord]]:
    """Return what becomes of four peers' stages in two epochs, and when."""

    async def train() -> list[tuple[int, float, MergeRecord]]:
        spec = small_run(folder, num_stages=2, merge=MergeSpec(), target_microbatches=30)
        found: list[tuple[int, float, MergeRecord]] = []
        async with open_training_swarm(5, spec, folder) as swarm:
            for number in range(4):
                member = await swarm.start(number, pinned=(number % 2,), costs=SLOW)
                assert member.trainer.merger is not None
                member.trainer.merger.on_merged = partial(_note, found, number)
            await epochs_of(swarm, 2)
        return found

    return trio.run(train, clock=MockClock(autojump_threshold=0))


def _note(found: list[tuple[int, float, MergeRecord]], number: int, record: MergeRecord) -> None:
    found.append((number, trio.current_time(), record))


@pytest.mark.slow
def test_merging__repeats_to_the_last_bit_with_one_seed(tmp_path: Path) -> None:
    """Two event loops, whose schedulers shuffle differently."""
    once = merge_once(tmp_path / "once")
    assert len(once) >= 4
    assert sorted(merge_once(tmp_path / "again"), key=str) == sorted(once, key=str)
