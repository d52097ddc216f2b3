"""A peer that serves wrong bytes of blocks, results and states is charged for it, and nobody takes them."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from functools import partial
from pathlib import Path

import pytest
from trio.testing import MockClock

from iota_p2p.merge.record import MergeRecord
from iota_p2p.run.spec import MergeSpec
from iota_p2p_testnet.merge_adversaries import merge_twist
from iota_p2p_testnet.training_swarm import Costs, open_training_swarm, small_run
from tests.sim.training_swarms import offences

COSTS = Costs(forward_s=0.03, backward_s=0.06, background_s=0.03)
LIAR, JOINER = 4, 5


@pytest.mark.slow
async def test_wrong_chunks__are_refused_charged_and_had_elsewhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Four replicas of the last stage, one of which changes a byte of all it serves; then a fifth joins the stage."""
    spec = small_run(tmp_path, num_stages=2, merge=MergeSpec(), target_microbatches=40)
    records: list[tuple[int, MergeRecord]] = []

    def note(number: int, record: MergeRecord) -> None:
        records.append((number, record))

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        for number in (0, 1, 2, 3, LIAR, JOINER):
            if number == JOINER:
                await swarm.until(lambda: sum(record.epoch >= 3 for other, record in records if other < LIAR) == 4, 300)
            twist = merge_twist("wrong-chunks") if number == LIAR else None
            member = await swarm.start(number, pinned=(min(number, 1),), costs=COSTS, twist=twist)
            assert member.trainer.merger is not None
            member.trainer.merger.on_merged = partial(note, number)
        joined = member
        await swarm.until(lambda: 1 in joined.trainer.share.stages, 60)
        after = joined.trainer.share.epoch + 2
        await swarm.until(lambda: any(record.epoch >= after for number, record in records if number == JOINER), 300)
        charged = offences(swarm)
    assert charged.keys() == {LIAR}
    by_epoch: dict[int, set[bytes]] = {}
    for number, record in records:
        if number in (1, 2, 3) or (number == JOINER and record.how == "merged"):
            by_epoch.setdefault(record.epoch, set()).add(record.theta_digest)
            assert (record.how, record.lost_shards, record.faults) == ("merged", 0, ())
    assert [len(digests) for digests in by_epoch.values()] == [1] * len(by_epoch)
