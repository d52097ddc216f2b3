"""What a network costs: a testnet's tokens per second against the same model trained on the same cores without one.

    python bench/training.py [--peers 4] [--stages 4] [--minutes 1] [--rounds 1] [--json FILE] [--quick]

The baseline is one process per core, each training the whole tiny model by itself through `StageCompute` with the same
microbatches, uncompressed, one torch thread each; their rates are added. Ours is `iota-p2p testnet`: real processes and
daemons on the same cores, counted from the first token. Both run in every round, the baseline before and after, so
that a busy machine slows both alike. Where the rest goes is read from /proc: processor time of the peers' own
processes and of their daemons, per microbatch and hop.

Predicted before the first run: 0.75 of the baseline, most of the rest in Python's event loops and the daemons.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

LEAST_RATIO = 0.85
MOST_START_S = 5.0
BASELINE_S = 15.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Processor seconds of a testnet's processes, by what they are."""

    peers_s: float
    daemons_s: float


def train_alone(seconds: float, results: "multiprocessing.Queue[float]") -> None:
    """Train the whole tiny model in this process and report tokens per second."""
    import torch  # noqa: PLC0415 - in the child only

    from iota_p2p.model.compute import StageCompute  # noqa: PLC0415
    from iota_p2p.run.configs import find_config  # noqa: PLC0415
    from iota_p2p.run.plan_file import load_plan  # noqa: PLC0415

    torch.set_num_threads(1)
    plan = load_plan(find_config("tiny"))
    plan = plan.model_copy(
        update={
            "model": plan.model.model_copy(update={"stage_cuts": ()}),
            "boundary": plan.boundary.model_copy(update={"kind": "none", "width": 0}),
        }
    )
    stage = StageCompute(plan, 0, seed=0)
    size, length = plan.epoch.microbatch_size, plan.model.sequence_length
    window_BT1 = torch.randint(0, plan.model.vocab_size, (size, length + 1))
    num_done, began_s = -2, 0.0  # two to warm up
    while num_done < 1 or time.perf_counter() < began_s + seconds:
        if num_done == 0:
            began_s = time.perf_counter()
        stage.backward(stage.forward(window_BT1))
        stage.step(1)
        num_done += 1
    results.put(num_done * size * length / (time.perf_counter() - began_s))


def baseline_tokens_per_s(seconds: float) -> float:
    """Return the summed rate of one process per core."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[float] = context.Queue()
    workers = [context.Process(target=train_alone, args=(seconds, results)) for _ in range(os.cpu_count() or 1)]
    for worker in workers:
        worker.start()
    rates = [results.get(timeout=seconds + 120) for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def run_testnet(arguments: argparse.Namespace) -> tuple[dict[str, Any], Usage]:
    """Run a testnet to its end; return its summary and the processor time of its processes."""
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        command = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", "testnet", "--plain"]
        command += ["--peers", str(arguments.peers), "--stages", str(arguments.stages)]
        command += ["--minutes", str(arguments.minutes), "--summary", str(summary)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        usage = Usage(0, 0)
        while process.poll() is None:
            usage = max(usage, usage_below(process.pid), key=lambda seen: seen.peers_s + seen.daemons_s)
            time.sleep(1)
        if process.returncode:
            sys.exit(f"the testnet failed with exit code {process.returncode}")
        return json.loads(summary.read_text()), usage


def usage_below(pid: int) -> Usage:
    """Return the processor time so far of all processes below one, daemons apart."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    daemons = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = stat.read_text().rsplit(")", 1)
        except OSError:  # it has just ended
            continue
        number, words = int(stat.parent.name), fields.split()
        parents[number] = int(words[1])
        seconds[number] = (int(words[11]) + int(words[12])) / CLOCK_TICKS
        if name.endswith("(p2pd"):
            daemons.add(number)
    below = {number for number in parents if _is_below(number, pid, parents)}
    daemons_s = sum(seconds[number] for number in below & daemons)
    return Usage(sum(seconds[number] for number in below) - daemons_s, daemons_s)


def _is_below(number: int, pid: int, parents: dict[int, int]) -> bool:
    while number in parents and number != pid:
        number = parents[number]
    return number == pid


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the rounds and return the figures."""
    alone = [baseline_tokens_per_s(arguments.baseline_s)]
    summaries, usages = [], []
    for _ in range(arguments.rounds):
        summary, usage = run_testnet(arguments)
        summaries.append(summary)
        usages.append(usage)
        alone.append(baseline_tokens_per_s(arguments.baseline_s))
    ours = mean(summary["tokens_per_s"] for summary in summaries)
    completed = sum(summary["microbatches"]["completed"] for summary in summaries)
    hops = completed * (arguments.stages - 1)
    return {
        "baseline_tokens_per_s": mean(alone),
        "testnet_tokens_per_s": ours,
        "ratio": ours / mean(alone),
        "start_s": mean(summary["start_s"] for summary in summaries),
        "forward_ratio": summaries[0]["boundary"]["forward_ratio"],
        "backward_ratio": summaries[0]["boundary"]["backward_ratio"],
        "peer_cpu_ms_per_microbatch": 1000 * sum(usage.peers_s for usage in usages) / completed,
        "daemon_cpu_ms_per_hop": 1000 * sum(usage.daemons_s for usage in usages) / hops,
        "control_bytes_per_microbatch": sum(summary["bytes"]["control"] for summary in summaries) / completed,
        "retried": sum(summary["microbatches"]["retried"] for summary in summaries),
        "lost": sum(summary["microbatches"]["lost"] for summary in summaries),
        "usages": [asdict(usage) for usage in usages],
    }


def print_table(figures: dict[str, Any]) -> None:
    """Print the figures with their reach marks."""
    marks = {
        "ratio": (f">= {LEAST_RATIO}", figures["ratio"] >= LEAST_RATIO),
        "start_s": (f"< {MOST_START_S}", figures["start_s"] < MOST_START_S),
        "forward_ratio": (">= 128", figures["forward_ratio"] >= 128),
        "backward_ratio": (">= 128", figures["backward_ratio"] >= 128),
        "lost": ("0", figures["lost"] == 0),
    }
    table = Table("figure", "value", "reach", "")
    for name, value in figures.items():
        if isinstance(value, int | float):
            reach, reached = marks.get(name, ("", None))
            table.add_row(name, f"{value:,.2f}", reach, {None: "", True: "reached", False: "MISSED"}[reached])
    Console().print(table)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="half a minute instead of a minute")
    arguments = parser.parse_args()
    arguments.minutes = 0.5 if arguments.quick else arguments.minutes
    arguments.baseline_s = BASELINE_S / 2 if arguments.quick else BASELINE_S
    figures = measure(arguments)
    print_table(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
