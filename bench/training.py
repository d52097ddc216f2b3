"""What a network costs: tokens per second of real peers against the same model trained on the same cores without one.

    python bench/training.py [--peers 4] [--seconds 40] [--rounds 1] [--json FILE] [--quick]

Four things take turns, each on all cores:

- *whole*: one process per core trains the whole tiny model by itself, nothing cut or coded;
- *staged*: the same, cut into the run's stages with its codes, so that what cutting and coding cost can be told
  from what the network costs;
- *piled*: the same with as many microbatches in flight as a source keeps; what it costs more is keeping the weights
  that a gradient goes back through after steps have changed them;
- *peers*: `iota-p2p peer` processes with their daemons, after all of them serve a stage and have settled.

Besides tokens per second, processor time per microbatch is compared: other programs on the machine change the first,
to the favour of whoever runs more processes, but not the second. A peer's main thread runs trio, the streams, packing
and signing; its other threads compute, and their time is told apart by what was computed. Nobody validates here, so
nothing is replayed; what a replay would need is kept all the same. Lanes idle while they wait for each other, and while
a stage's replicas merge. Last, one more peer joins the warm network, started as a user starts it, torch's import
included, until it has taken its first microbatch.

Predicted before the first run: 0.75 of the whole, most of the rest in Python's event loops and the daemons. It was
0.6, and about half of what was missing were forward passes run again, for which `piled` was added; since then weights
are kept instead (docs/decisions/0106-late-gradients-through-kept-weights.md).
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.hop import Pathway, cpu_ms
from bench.training_alone import Alone, train_alone
from bench.training_peers import Peer, Usage, cpu_s, memory_mb, running_peer, testnet, usage_of, wait_until
from iota_p2p.run.configs import find_config
from iota_p2p.run.plan_file import load_plan

IN_FLIGHT = 5  # of one source in a run of four stages (`iota_p2p.training.trainer`)
LEAST_RATIO = 0.85
MOST_HOP_MS = 1.0
MOST_JOIN_S = 5.0
LEAST_BOUNDARY_RATIO = 128

Figures = dict[str, Any]


def measure_peers(count: int, seconds: float) -> tuple[Usage, Figures]:
    """Return what peers did in a stretch of time once settled, and how a further one joined."""
    with testnet(count) as peers:
        before = usage_of(peers)
        time.sleep(seconds)
        used = usage_of(peers) - before
        boundary = peers[0].status["boundary"]
        trouble = {name: sum(peer.status["microbatches"][name] for peer in peers) for name in ("retried", "lost")}
        rest = {
            "layout": [peer.stages for peer in peers],
            "forward_ratio": boundary["forward_ratio"],
            "backward_ratio": boundary["backward_ratio"],
            **trouble,
            **memory_mb(peers),
            **measure_join(peers[0]),
        }
    return used, rest


def measure_join(known: Peer) -> Figures:
    """Return when a new peer has taken its first microbatch, and when it had come how far; seconds after its start.

    Besides that by the clock, its processor time until then, which does not depend on what else the machine does.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as home,
        running_peer(Path(home) / "joiner", "--bootstrap", known.address) as peer,
    ):
        wait_until(lambda: "working" in peer.heard_s, "a joining peer's first work")
        steps = {f"join_{name}_s": peer.heard_s.get(name) for name in ("address", "view", "speed", "stage")}
        return {"join_s": peer.heard_s["working"], **steps, "join_cpu_s": cpu_s(peer), "load": os.getloadavg()[0]}


def figures_of(alone: tuple[Alone, Alone, Alone], used: Usage, rest: Figures, count: int) -> Figures:
    """Return everything that is reported of one round."""
    whole, staged, piled = alone
    plan = load_plan(find_config("tiny"))
    hops = used.completed * (plan.model.num_stages - 1)
    stages_held = sum(map(len, rest["layout"]))
    per = 1000 / used.completed  # seconds in all to milliseconds per microbatch
    peers_ms = per * (used.compute_s + used.loop_s + used.daemons_s)
    ours = used.tokens / used.at_s
    payload = plan.epoch.microbatch_size * plan.model.sequence_length * (plan.boundary.width + 1)
    return {
        "whole_tokens_per_s": whole.tokens_per_s,
        "staged_tokens_per_s": staged.tokens_per_s,
        "piled_tokens_per_s": piled.tokens_per_s,
        "peers_tokens_per_s": ours,
        "ratio": ours / whole.tokens_per_s,
        "cpu_ratio": whole.cpu_ms / peers_ms,
        "whole_cpu_ms": whole.cpu_ms,
        "staged_cpu_ms": staged.cpu_ms,
        "piled_cpu_ms": piled.cpu_ms,
        "peers_cpu_ms": peers_ms,
        "peers_compute_cpu_ms": per * used.compute_s,
        "- passes, steps, notes for replays": per * used.training_s,
        "- held-out text, states": per * used.evaluating_s,
        "- merges, digests, files": per * used.beside_s,
        "- threads' own": per * (used.compute_s - used.training_s - used.evaluating_s - used.beside_s),
        "peers_loop_cpu_ms": per * used.loop_s,
        "peers_daemons_cpu_ms": per * used.daemons_s,
        "loop_cpu_ms_per_hop": 1000 * used.loop_s / hops,
        "daemons_cpu_ms_per_hop": 1000 * used.daemons_s / hops,
        "hop_cpu_ms": cpu_ms(Pathway(plan.model.num_stages, payload).hop),
        "lane_busy_share": used.lane_s / (used.at_s * count),
        "merging_share": used.merging_s / (used.at_s * stages_held),
        "cores_used": (used.compute_s + used.loop_s + used.daemons_s) / used.at_s,
        "payload_bytes_per_hop": used.payload_bytes / hops,
        "control_bytes_per_hop": used.control_bytes / hops,
        **rest,
    }


def print_table(figures: Figures) -> None:
    """Print the figures with their reach marks."""
    marks = {
        "ratio": (f">= {LEAST_RATIO}", figures["ratio"] >= LEAST_RATIO),
        "hop_cpu_ms": (f"< {MOST_HOP_MS}", figures["hop_cpu_ms"] < MOST_HOP_MS),
        "forward_ratio": (f">= {LEAST_BOUNDARY_RATIO}", figures["forward_ratio"] >= LEAST_BOUNDARY_RATIO),
        "backward_ratio": (f">= {LEAST_BOUNDARY_RATIO}", figures["backward_ratio"] >= LEAST_BOUNDARY_RATIO),
        "join_s": (f"< {MOST_JOIN_S}", figures["join_s"] < MOST_JOIN_S),
        "lost": ("0", figures["lost"] == 0),
    }
    table = Table("figure", "value", "reach", "")
    for name, value in figures.items():
        reach, reached = marks.get(name, ("", None))
        shown = f"{value:,.2f}" if isinstance(value, int | float) else str(value)
        table.add_row(name, shown, reach, {None: "", True: "reached", False: "MISSED"}[reached])
    Console().print(table)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0, help="of the peers' stretch; a third for the others")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one round of 20 s")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.rounds = 20.0, 1
    alone_s = arguments.seconds / 3
    rounds = []
    for _ in range(arguments.rounds):
        before, staged, piled = (train_alone(in_flight=count, seconds=alone_s) for count in (0, 1, IN_FLIGHT))
        used, rest = measure_peers(arguments.peers, arguments.seconds)
        after = train_alone(in_flight=0, seconds=alone_s)
        whole = Alone(mean((before.tokens_per_s, after.tokens_per_s)), mean((before.cpu_ms, after.cpu_ms)))
        rounds.append(figures_of((whole, staged, piled), used, rest, arguments.peers) | {"peers_stretch": asdict(used)})
        print_table({name: value for name, value in rounds[-1].items() if name != "peers_stretch"})
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": os.cpu_count(), "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
