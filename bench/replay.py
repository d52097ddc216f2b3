"""What replaying finds, how soon, and what it costs: peers that do not work, in a simulated network.

    .venv/bin/python bench/replay.py [--json FILE]

Six peers in three stages train on real text (every number is computed, only network and clock are simulated); one of
them cheats, another one replays an epoch of it, segment by segment. Cost is processor time of the replay against that
of the work it repeats. Drawing, over 600 seeds each: how often a peer that cheats in such a share of its segments is
looked at in one of those within so many epochs, and what all validators together spend, as a share of the training.

Predicted before the first run: a segment costs what its share of the work did, and a fifth more for microbatches under
way at its cuts; eight validators find whoever cheats throughout in the first epoch, for a tenth of the training. Found:
what goes forward only is left out, so all segments together cost 1.03 times the work; the first epoch finds 92 %, as
somebody who would be dealt its own work leaves that to a hand that is full.
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
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.scoring.replay_draw import Budget, Pair, deal_replays, draw_segment
from iota_p2p_protocols.scoring.segments import Segment
from iota_p2p_testnet.work_adversaries import work_twist
from tests.sim.replaying import replayed

REACH = 0.1  # of the training's compute
CASES = ((None, 0), (None, 1), (None, 2), ("lazy", 1), ("random-output", 1), ("stale", 1), ("lying-tail", 2))
SEATS = 16  # validators, at most
BUDGET = 0.1  # of what a peer does, `replay_ppm` of a run
# Peers of one stage each, segments to a log, and the share of segments that one of them cheats in.
SWARMS = (
    (8, 12, 1.0),
    (8, 8, 1.0),
    (8, 3, 1.0),
    (8, 1, 1.0),
    (8, 12, 0.5),
    (8, 12, 0.25),
    (16, 12, 1.0),
    (64, 12, 1.0),
)
WITHIN = (1, 3, 10)
DRAWS = 600


def verdicts() -> list[dict[str, Any]]:
    """Replay one peer of each kind."""
    rows = []
    for name, stage in CASES:
        with tempfile.TemporaryDirectory() as folder:
            twist = None if name is None else work_twist(name)
            work = partial(replayed, Path(folder), stage, twist)
            outcome = trio.run(work, clock=MockClock(autojump_threshold=0))
        rows.append(
            {
                "peer": name or "honest",
                "stage": stage,
                "verdict": outcome.verdict.replay,
                "reason": outcome.verdict.reason,
                "segments": len(outcome.redone),
                "failed": sum(one.replay == "failed" for one in outcome.redone),
                "cost": outcome.replay_s / outcome.work_s,
            }
        )
    return rows


def draws(num_peers: int, num_segments: int, lies: float, cost: float) -> dict[str, Any]:
    """Return how soon one of so many peers is found, and what that costs all validators together.

    Args:
        num_peers: all of which validate, as far as there are seats.
        num_segments: of every log.
        lies: share of its segments that the cheat cheats in, the first ones.
        cost: of replaying an epoch, in terms of the epoch.
    """
    peers = [Identity.from_seed(number.to_bytes(32, "big")).peer_id for number in range(num_peers)]
    pairs: list[Pair] = [(peer_id, 0) for peer_id in peers]
    segments = [Segment(index, index, index + 1) for index in range(num_segments)]
    found, spent = [], 0.0
    for number in range(DRAWS):
        seed = digest(b"%d" % number)
        hands = deal_replays(seed, pairs, (), peers, SEATS)
        elected = sorted(peers, key=lambda peer_id: digest(seed + peer_id.encode()))[:SEATS]
        taken = [pair for peer_id in elected for pair in _taken(seed, hands[peer_id], 1 / num_segments)]
        spent += len(taken) * cost / num_segments
        found.append(pairs[0] in taken and draw_segment(seed, pairs[0], segments).index < lies * num_segments)
    caught = {n: fmean(any(found[first : first + n]) for first in range(0, DRAWS - n + 1, n)) for n in WITHIN}
    row = {"peers": num_peers, "segments": num_segments, "lies": lies, "caught_within": caught}
    return row | {"share_of_training": spent / DRAWS / num_peers}


def _taken(seed: bytes, hand: tuple[tuple[PeerId, int], ...], cost: float) -> list[Pair]:
    budget = Budget(BUDGET)
    return [pair for pair in hand if budget.takes(seed, pair, cost)]


def main() -> None:
    """Measure, print, and write JSON if asked to. A missed reach is shown, not an exit code."""
    parser = argparse.ArgumentParser(description="What replaying finds, how soon, and what it costs.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args()
    rows = verdicts()
    print(f"{'peer':<15}{'stage':>5}  {'verdict':<9}{'reason':<13}{'segments failed':>16}{'cost of the work':>18}")
    for row in rows:
        failed = f"{row['failed']} of {row['segments']}" if row["segments"] else "by its log"
        verdict = f"{row['verdict']:<9}{row['reason']:<13}"
        print(f"{row['peer']:<15}{row['stage']:>5}  {verdict}{failed:>16}{row['cost']:>18.2f}")
    cost = fmean(row["cost"] for row in rows if row["peer"] == "honest")
    table = [draws(*swarm, cost) for swarm in SWARMS]
    head = "".join(f"{f'within {n}':>11}" for n in WITHIN)
    print(f"\n{'peers':>5}{'segments':>10}{'cheats in':>11}{head}{'of training':>13}")
    for row in table:
        caught = "".join(f"{row['caught_within'][n]:>11.3f}" for n in WITHIN)
        mark = "reached" if row["share_of_training"] <= REACH else "MISSED"
        share = f"{row['share_of_training']:>13.3f}  {mark}"
        print(f"{row['peers']:>5}{row['segments']:>10}{row['lies']:>11.0%}{caught}{share}")
    if options.json:
        options.json.write_text(json.dumps({"verdicts": rows, "draws": table, "reach": REACH}, indent=2) + "\n")


if __name__ == "__main__":
    main()
