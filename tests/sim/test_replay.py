"""Replays on the simulated network: honest work passes, and each way of not doing it fails by its name."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
from trio.testing import MockClock

from iota_p2p.run.spec import MergeSpec
from iota_p2p_protocols.scoring.replay_verdict import MAX_CROSSING
from iota_p2p_testnet.work_adversaries import work_twist
from tests.sim.replaying import replayed

HONEST = [
    pytest.param(stage, merge, id=f"{stage}-{name}", marks=() if name == "alone" and stage == 1 else pytest.mark.slow)
    for stage in range(3)
    for name, merge in (("alone", None), ("merged", MergeSpec()))
]


@pytest.mark.parametrize(("stage", "merge"), HONEST)
async def test_replay__passes_honest_work(
    stage: int, merge: MergeSpec | None, tmp_path: Path, autojump_clock: MockClock
) -> None:
    verdict = (await replayed(tmp_path, stage, merge=merge)).verdict
    assert (verdict.replay, verdict.reason) == ("passed", "none"), verdict
    assert sum(count for _, count in verdict.findings) <= MAX_CROSSING // 2


@pytest.mark.parametrize(
    ("name", "stage", "reason"),
    [
        ("lazy", 1, "no-backward"),
        pytest.param("lazy", 2, "no-backward", marks=pytest.mark.slow),
        pytest.param("random-output", 0, "output", marks=pytest.mark.slow),
        pytest.param("random-output", 1, "output", marks=pytest.mark.slow),
        pytest.param("stale", 1, "output", marks=pytest.mark.slow),
        pytest.param("lying-tail", 2, "loss", marks=pytest.mark.slow),
    ],
)
async def test_replay__fails_by_name_whoever_cheats(
    name: str, stage: int, reason: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    verdict = (await replayed(tmp_path, stage, work_twist(name))).verdict
    assert (verdict.replay, verdict.reason) == ("failed", reason), verdict
