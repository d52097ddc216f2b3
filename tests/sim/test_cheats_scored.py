"""A cheat among validating peers: found by one of them, seen by all, and scored at nothing; nobody honest is."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from trio.testing import MockClock

from iota_p2p.run.spec import MergeSpec
from iota_p2p.validation.validation import open_validation
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.replay_verdict import Verdict
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from iota_p2p_testnet.work_adversaries import work_twist
from tests.sim.test_validation import config_of
from tests.sim.training_swarms import SLOW

CHEAT = 3
NUM_EPOCHS = 3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reason"), [("copying", "no-backward"), ("unmerged", "start-state")])
async def test_cheat__is_scored_at_nothing_by_all_within_three_epochs(
    name: str, reason: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Of four peers in two stages, with the budget that runs have by default."""
    spec = small_run(tmp_path, target_microbatches=80, merge=MergeSpec())
    records: dict[PeerId, list[ScoreRecord]] = {}
    verdicts: set[tuple[PeerId, str, str]] = set()

    def note(_: int, pair: tuple[PeerId, int], verdict: Verdict) -> None:
        verdicts.add((pair[0], verdict.replay, verdict.reason))

    async with open_training_swarm(3, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        for number in range(CHEAT + 1):
            twist = work_twist(name) if number == CHEAT else None
            member = await swarm.start(number, pinned=((number + 1) % 2,), costs=SLOW, twist=twist)
            config = replace(config_of(tmp_path, member, stack), replay_ppm=100_000)
            opened = open_validation(member.peer, member.trainer.share, config)
            validator = (await stack.enter_async_context(opened)).validator
            cheat = member.peer.identity.peer_id
            validator.on_record, validator.on_replay = records.setdefault(cheat, []).append, note
        await swarm.until(partial(_have_scored, records), timeout_s=600)
    assert {one for one in verdicts if one[1] in ("failed", "no-evidence")} == {(cheat, "failed", reason)}
    honest = records.keys() - {cheat}
    of_cheat = [scores_of(records[peer_id], cheat) for peer_id in honest]
    assert any(all(scores.get(epoch) == 0 for scores in of_cheat) for epoch in range(NUM_EPOCHS))
    for other in honest:
        assert all(score for peer_id in honest - {other} for score in scores_of(records[peer_id], other).values())


def _have_scored(records: dict[PeerId, list[ScoreRecord]]) -> bool:
    return all(len(found) >= NUM_EPOCHS for found in records.values())


def scores_of(records: list[ScoreRecord], peer_id: PeerId) -> dict[int, int]:
    """Return a peer's scores by epoch."""
    return {one.epoch: row.score.score for one in records for row in one.rows if row.peer_id == peer_id}
