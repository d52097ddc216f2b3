"""Real processes: all peers that serve a stage are killed at once, and the stage comes back from its custodians."""

import json
import re
from pathlib import Path

import pytest

from tests.net.test_testnet import launched, scratch, texts

__all__ = ["scratch", "texts"]  # fixtures of ours, too
pytestmark = pytest.mark.net
WITHIN_S = 15.0


async def test_stage__back_from_custodians_within_seconds_when_all_its_peers_are_killed(
    scratch: Path,
    tmp_path: Path,
    texts: str,
) -> None:
    result = tmp_path / "result.json"
    # Late enough that a loaded machine has trained and pushed by then.
    words = ("--data", texts, "--stages", "2", "--kill", "stage:1@40s", "--minutes", "1", "--summary", result)
    async with launched(scratch, *words) as testnet:
        # Stage 1, or 0 if all peers served stage 1: one of them is spared then, and has to take up 0.
        line = await testnet.until(lambda line: "nobody serves stage" in line)
        stage = int(line.split("nobody serves stage ")[1].split()[0])
        line = await testnet.until(lambda line: f"stage {stage} is served again" in line)
        match = re.search(r"after ([\d.]+) s", line)
        assert match is not None
        assert float(match[1]) < WITHIN_S
        assert await testnet.end() == 0, testnet.lines
    summary = json.loads(result.read_text())
    recovery = next(row for row in summary["recoveries"] if row["stage"] == stage)
    assert recovery["kind"] == "custodians"
    assert recovery["steps_after"] > 0
    assert recovery["seconds"] < WITHIN_S
    assert summary["bytes"]["custody"] > 0
