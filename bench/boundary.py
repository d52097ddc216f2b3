"""How much validation loss a boundary costs at equal tokens: the table of design 7.

    python bench/boundary.py --tokens 310000 --seeds 0 1 --boundaries subspace:7 anchored:7 iota:4:16

A boundary is `kind[:width[:bits]]`. Two rows are always there: `none`, the uncompressed base, tuned with the rest, and
`control`, the last stage's layers alone without any pipeline: what a boundary that lets nothing through would give.
Every row trains the same layers on the same windows of the Python standard library with the same optimizer, through
the very bytes that peers exchange. Finished (row, seed) pairs are kept in
bench/results/boundary.jsonl and not run again: delete it after a change of the code.
"""

import argparse
import importlib
import json
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from iota_p2p.model.compute import Held, StageCompute
from iota_p2p.run import corpus
from iota_p2p.run.microbatch import Permutation, window_indices
from iota_p2p.run.shards import ShardStore, Windows, data_spec
from iota_p2p.run.spec import BoundarySpec, EpochSpec, ModelSpec, OptimizerSpec, RunPlan
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.microbatch import MicrobatchId

RESULTS = Path(__file__).parent / "results"
MICROBATCH_SIZE = 4
VALIDATION_WINDOWS = 96  # 24,576 tokens: the same for every row
SOURCE = Identity.from_seed(bytes(32)).peer_id  # whose data all rows train on
ALWAYS = ("none", "control")
MODEL = ModelSpec(
    vocab_size=256,
    width=256,
    num_layers=8,
    num_heads=4,
    num_kv_heads=4,
    ffn_width=688,
    sequence_length=256,
    stage_cuts=(2, 4, 6),
)


@dataclass(frozen=True)
class Job:
    """One training run of the table."""

    row: str
    seed: int
    tokens: int
    optimizer: OptimizerSpec

    @property
    def num_steps(self) -> int:
        """Inner steps that come closest to `tokens`."""
        return round(self.tokens / (MICROBATCH_SIZE * MODEL.sequence_length))

    @property
    def key(self) -> str:
        """What distinguishes a finished run from any other."""
        return f"{self.row}/{self.seed}/{self.num_steps}/{self.plan().model_dump_json(exclude_none=True)}"

    def plan(self) -> RunPlan:
        """Return the run that this row trains."""
        parts = "none" if self.row == "control" else self.row
        kind, width, bits = (*parts.split(":"), *("0", "8")[parts.count(":") :])
        model = MODEL
        if self.row == "control":
            last = len(MODEL.blocks_of(MODEL.num_stages - 1))
            model = MODEL.model_copy(update={"num_layers": last, "stage_cuts": ()})
        return RunPlan(
            name="bench",
            model=model,
            boundary=BoundarySpec.model_validate({"kind": kind, "width": int(width), "code_bits": int(bits)}),
            optimizer=self.optimizer.model_copy(update={"decay_steps": self.num_steps}),
            epoch=EpochSpec(microbatch_size=MICROBATCH_SIZE, inner_steps=1, target_microbatches=1, deadline_s=1),
        )


def windows() -> tuple[Windows, Windows]:
    """Return the training and held-out windows of this machine's standard library."""
    train, heldout = corpus.split(corpus.standard_library())
    store = ShardStore(RESULTS / "shards")
    data = data_spec(train, heldout, ByteTokenizer(), store)
    return Windows(store, data.train, MODEL), Windows(store, data.heldout, MODEL)


def forward(stages: list[StageCompute], window_BT1: torch.Tensor) -> list[Held]:
    """Return what each stage holds after a microbatch has passed through all of them."""
    held = [stages[0].forward(window_BT1)]
    for stage in stages[1:]:
        held.append(stage.forward(window_BT1, held[-1].payload))
    return held


def train_step(stages: list[StageCompute], window_BT1: torch.Tensor) -> tuple[float, int, int]:
    """Train on one microbatch; return its loss, and bytes sent forward and backward over all boundaries."""
    held = forward(stages, window_BT1)
    gradient = None
    num_backward = 0
    for stage, item in zip(reversed(stages), reversed(held), strict=True):
        gradient = stage.backward(item, gradient)
        num_backward += len(gradient or b"")
        stage.step(1)
    assert held[-1].loss is not None  # noqa: S101 - the last stage gives it
    return held[-1].loss, sum(len(item.payload or b"") for item in held), num_backward


@torch.no_grad()
def validate(stages: list[StageCompute], heldout: Windows) -> float:
    """Return the held-out loss in nats per byte."""
    chosen = [Permutation(b"validation", heldout.count)[i] for i in range(VALIDATION_WINDOWS)]
    batches = [chosen[i : i + MICROBATCH_SIZE] for i in range(0, len(chosen), MICROBATCH_SIZE)]
    losses = [forward(stages, torch.from_numpy(heldout.read(batch)))[-1].loss for batch in batches]
    return mean(loss for loss in losses if loss is not None)


def run_job(job: Job, train: Windows, heldout: Windows) -> dict[str, Any]:
    """Train one row and return its line of the results file."""
    plan = job.plan()
    stages = [StageCompute(plan, index, seed=job.seed) for index in range(plan.model.num_stages)]
    started = time.process_time()
    curve: list[tuple[int, float]] = []
    tokens_sent = bytes_forward = bytes_backward = 0
    for step in range(job.num_steps):
        microbatch = MicrobatchId(epoch=0, source=SOURCE, counter=step)
        chosen = window_indices(job.seed.to_bytes(8, "big"), microbatch, train.count, MICROBATCH_SIZE)
        loss, forward_bytes, backward_bytes = train_step(stages, torch.from_numpy(train.read(chosen)))
        tokens_sent += MICROBATCH_SIZE * MODEL.sequence_length * (len(stages) - 1)
        bytes_forward += forward_bytes
        bytes_backward += backward_bytes
        if step % 10 == 0:
            curve.append((step, loss))
    raw = tokens_sent * MODEL.width * 4
    return {
        "key": job.key,
        "row": job.row,
        "seed": job.seed,
        "tokens": job.tokens,
        "validation": validate(stages, heldout),
        "ratio_forward": raw / bytes_forward if bytes_forward else None,
        "ratio_backward": raw / bytes_backward if bytes_backward else None,
        "cpu_seconds": time.process_time() - started,
        "curve": curve,
    }


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of the results file by key."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {line["key"]: line for line in lines}


def table_of(results: list[dict[str, Any]], rows: list[str]) -> Table:
    """Return the table: losses per seed, and the mean gap to the uncompressed base over the seeds both have."""
    table = Table("boundary", "forward", "backward", "nats/byte by seed", "gap", "CPU-s/run")
    base = {line["seed"]: line["validation"] for line in results if line["row"] == "none"}
    for row in rows:
        lines = sorted((line for line in results if line["row"] == row), key=lambda line: line["seed"])
        if not lines:
            continue
        gaps = [line["validation"] - base[line["seed"]] for line in lines if line["seed"] in base]
        ratios = [f"{ratio:.1f}x" if (ratio := lines[0][f"ratio_{way}"]) else "-" for way in ("forward", "backward")]
        losses = ", ".join(f"{line['validation']:.3f}" for line in lines)
        gap = f"{mean(gaps):+.3f}" if gaps else "?"
        table.add_row(row, *ratios, losses, gap, f"{mean(line['cpu_seconds'] for line in lines):.0f}")
    return table


def draw(results: list[dict[str, Any]], rows: list[str], path: Path) -> bool:
    """Draw smoothed training losses; return False where matplotlib is not installed."""
    try:
        figures: Any = importlib.import_module("matplotlib.figure")  # optional: only the picture needs it
    except ImportError:
        return False
    figure = figures.Figure(figsize=(8, 5), layout="tight")
    axes = figure.add_subplot(xlabel="tokens", ylabel="training loss, nats/byte", title="Loss at equal tokens")
    for row in rows:
        curves = [line["curve"] for line in results if line["row"] == row]
        if curves:
            losses = [mean(values) for values in zip(*([loss for _, loss in curve] for curve in curves), strict=False)]
            smooth = [mean(losses[max(0, i - 4) : i + 1]) for i in range(len(losses))]
            steps = [step * MICROBATCH_SIZE * MODEL.sequence_length for step, _ in curves[0]]
            axes.plot(steps[: len(smooth)], smooth, label=row)
    axes.set_ylim(top=3.5)
    axes.legend()
    figure.savefig(path, dpi=120)
    return True


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=310_000, help="training tokens per run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--boundaries", nargs="*", default=["subspace:7", "anchored:7"], help="kind[:width[:bits]]")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--muon-rate", type=Decimal, default=OptimizerSpec().muon_rate)
    parser.add_argument("--adamw-rate", type=Decimal, default=OptimizerSpec().adamw_rate)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    optimizer = OptimizerSpec(muon_rate=arguments.muon_rate, adamw_rate=arguments.adamw_rate)
    rows = list(dict.fromkeys([*ALWAYS, *arguments.boundaries]))
    jobs = [Job(row, seed, arguments.tokens, optimizer) for seed in arguments.seeds for row in rows]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "boundary.jsonl"
    console = Console()
    train, heldout = windows()
    for job in jobs:
        if job.key not in finished(path):
            result = run_job(job, train, heldout)
            console.log(f"{job.row} seed {job.seed}: {result['validation']:.3f} in {result['cpu_seconds']:.0f} CPU-s")
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
    done = finished(path)
    results = [done[job.key] for job in jobs]
    console.print(table_of(results, rows))
    picture = path.with_suffix(".png")
    console.print(f"drawn: {picture}" if draw(results, rows, picture) else "no picture: matplotlib is not installed")


if __name__ == "__main__":
    main()
