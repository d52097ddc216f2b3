"""Replays on the simulated network: honest work passes, and each way of not doing it fails by its name."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
from trio.testing import MockClock

from iota_p2p.run.spec import MergeSpec
from iota_p2p_protocols.scoring.replay_verdict import MAX_CROSSING, Verdict
from iota_p2p_protocols.scoring.segments import MAX_SEGMENTS
from iota_p2p_testnet.work_adversaries import work_twist
from tests.sim.replaying import replayed

HONEST = [
    pytest.param(
        stage, merge, per_step, id=f"{stage}-{name}", marks=() if name == "alone" and stage == 1 else pytest.mark.slow
    )
    for stage in range(3)
    for name, merge, per_step in (("alone", None, 1), ("merged", MergeSpec(), 1), ("summed", MergeSpec(), 2))
]


@pytest.mark.parametrize(("stage", "merge", "per_step"), HONEST)
async def test_replay__passes_every_segment_of_honest_work(
    stage: int, merge: MergeSpec | None, per_step: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """To the last bit: nothing is found odd in any segment, with microbatches under way at every cut."""
    outcome = await replayed(tmp_path, stage, merge=merge, per_step=per_step)
    assert outcome.read.replay == "not-drawn", outcome.read
    assert sum(count for _, count in outcome.read.findings) <= MAX_CROSSING // 2
    assert set(outcome.redone) == {Verdict("passed")}
    assert len(outcome.redone) > MAX_SEGMENTS // 2


@pytest.mark.parametrize(
    ("name", "stage", "reason"),
    [
        ("lazy", 1, "no-backward"),
        pytest.param("lazy", 2, "no-backward", marks=pytest.mark.slow),
        pytest.param("random-output", 0, "output", marks=pytest.mark.slow),
        pytest.param("random-output", 1, "output", marks=pytest.mark.slow),
        pytest.param("stale", 1, "output", marks=pytest.mark.slow),
        pytest.param("lying-tail", 2, "loss", marks=pytest.mark.slow),
        ("poisoned-gradient", 1, "gradient"),
        pytest.param("poisoned-gradient", 2, "gradient", marks=pytest.mark.slow),
        pytest.param("copying", 1, "no-backward", marks=pytest.mark.slow),
        pytest.param("colluding-stage", 1, "output", marks=pytest.mark.slow),
    ],
)
async def test_replay__finds_whoever_cheats_by_name_in_any_segment(
    name: str, stage: int, reason: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """All but the first segment: while nothing is learned yet, old weights are the right ones.

    In a segment of four microbatches there may be only backwards, whose forwards stand before it.
    """
    outcome = await replayed(tmp_path, stage, work_twist(name))
    found = [one.reason for one in outcome.redone[1:] or (outcome.read,) if one.replay == "failed"]
    assert set(found) == {reason}
    assert len(found) >= len(outcome.redone) - 2
