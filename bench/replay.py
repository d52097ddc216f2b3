"""What replaying finds, how soon, and what it costs: peers that do not work, in a simulated network.

    .venv/bin/python bench/replay.py [--json FILE]

Six peers in three stages train on real text (every number is computed, only network and clock are simulated); one of
them cheats, another one replays an epoch of it. Cost is processor time of the replay against that of the work it
repeats. Drawing, over 2,000 seeds each: how often a liar is replayed within so many epochs, and what all validators
together spend, as a share of the training, if they replay so many stages of peers after each epoch.

Predicted before the first run: a replay costs what the work did (1.0), without the network's waiting; so the reach of
a tenth of the training is met from ten times as many peers as validators on, and not in a small testnet. Found: 0.9.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import trio
from trio.testing import MockClock

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.scoring.replay_draw import draw_replays
from iota_p2p_testnet.work_adversaries import work_twist
from tests.sim.replaying import replayed

REACH = 0.1  # of the training's compute
CASES = ((None, 0), (None, 1), (None, 2), ("lazy", 1), ("random-output", 1), ("stale", 1), ("lying-tail", 2))
SEATS = 16  # validators, at most
SWARMS = ((8, 1), (64, 1), (64, 4), (512, 1), (512, 16))  # peers of one stage each, replays after each epoch
WITHIN = (1, 3, 10)
DRAWS = 2_000


def verdicts() -> list[dict[str, Any]]:
    """Replay one peer of each kind."""
    rows = []
    for name, stage in CASES:
        with tempfile.TemporaryDirectory() as folder:
            twist = None if name is None else work_twist(name)
            work = partial(replayed, Path(folder), stage, twist)
            outcome = trio.run(work, clock=MockClock(autojump_threshold=0))
        verdict = outcome.verdict
        rows.append(
            {
                "peer": name or "honest",
                "stage": stage,
                "verdict": verdict.replay,
                "reason": verdict.reason,
                "not_borne_out": dict(verdict.findings),
                "cost": outcome.replay_s / outcome.work_s,
            }
        )
    return rows


def draws(num_peers: int, num_replays: int, cost: float) -> dict[str, Any]:
    """Return how soon one of so many peers is drawn, and what that costs all validators together."""
    pairs = [(Identity.from_seed(number.to_bytes(32, "big")).peer_id, 0) for number in range(num_peers)]
    drawn = [pairs[0] in draw_replays(digest(b"%d" % seed), pairs, num_replays) for seed in range(DRAWS)]
    caught = {n: fmean(any(drawn[first : first + n]) for first in range(0, DRAWS - n + 1, n)) for n in WITHIN}
    share = cost * min(SEATS, num_peers) * num_replays / num_peers
    return {"peers": num_peers, "replays": num_replays, "caught_within": caught, "share_of_training": share}


def main() -> None:
    """Measure, print, and write JSON if asked to. A missed reach is shown, not an exit code."""
    parser = argparse.ArgumentParser(description="What replaying finds, how soon, and what it costs.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args()
    rows = verdicts()
    print(f"{'peer':<15}{'stage':>5}  {'verdict':<9}{'reason':<13}{'cost of the work':>17}  not borne out")
    for row in rows:
        print(
            f"{row['peer']:<15}{row['stage']:>5}  {row['verdict']:<9}{row['reason']:<13}{row['cost']:>17.2f}  "
            f"{row['not_borne_out'] or ''}"
        )
    cost = fmean(row["cost"] for row in rows if row["peer"] == "honest")
    table = [draws(*swarm, cost) for swarm in SWARMS]
    head = "".join(f"{f'within {n}':>11}" for n in WITHIN)
    print(f"\n{'peers':>5}{'replays':>9}{head}{'of training':>13}  (16 validators or all)")
    for row in table:
        caught = "".join(f"{row['caught_within'][n]:>11.3f}" for n in WITHIN)
        mark = "reached" if row["share_of_training"] <= REACH else "MISSED"
        print(f"{row['peers']:>5}{row['replays']:>9}{caught}{row['share_of_training']:>13.3f}  {mark}")
    if options.json:
        options.json.write_text(json.dumps({"verdicts": rows, "draws": table, "reach": REACH}, indent=2) + "\n")


if __name__ == "__main__":
    main()
