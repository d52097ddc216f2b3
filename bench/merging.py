"""What merging costs and withstands, at equal tokens: the tables of docs/butterfly.md.

    python -m bench.merging --codecs
    python -m bench.merging --tokens 610000 --rows synchronous float32 int8

Replicas of one small model train on their own data of the Python standard library and meet every `steps` inner
steps, through the very code that peers run: encode with feedback, reduce block by block, decode, outer step. The rows
are in ROWS. Finished (row, tokens, seed) are kept in bench/results/merging.jsonl and not run again: delete it after a
change of the code.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from iota_p2p.merge.outer_step import OuterState, Vector, outer_step
from iota_p2p.model.compute import StageCompute
from iota_p2p.model.state import set_vector, vector_of
from iota_p2p.run import corpus
from iota_p2p.run.microbatch import Permutation, window_indices
from iota_p2p.run.shards import ShardStore, Windows, data_spec
from iota_p2p.run.spec import BoundarySpec, EpochSpec, MergeSpec, ModelSpec, OptimizerSpec, RunPlan
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, Codec, Encoded, block_counts
from iota_p2p_protocols.butterfly.codecs import CODECS, encode_with_feedback, result_codec
from iota_p2p_protocols.butterfly.dense_codecs import Int8
from iota_p2p_protocols.butterfly.reduce import Reducer, counted_samples
from iota_p2p_protocols.microbatch import MicrobatchId

RESULTS = Path(__file__).parent / "results"
MICROBATCH_SIZE = 8
VALIDATION_WINDOWS = 192  # 24,576 tokens: the same for every row
MODEL = ModelSpec(
    vocab_size=256, width=128, num_layers=4, num_heads=4, num_kv_heads=4, ffn_width=352, sequence_length=128
)
# For the rows about liars, whose eight replicas share the tokens.
SMALL = MODEL.model_copy(update={"width": 64, "num_heads": 2, "num_kv_heads": 2, "ffn_width": 176})

Attack = Callable[[Vector, np.random.Generator], Vector]


@dataclass(frozen=True)
class Row:
    """One way to merge.

    Attributes:
        codec: of pseudo-gradients; None trains one model on everybody's microbatches at once.
        replicas: how many.
        steps: inner steps between merges.
        feedback: whether what the codec loses is added to the next pseudo-gradient.
        clip: whether blocks are scaled to the median norm.
        outer: the outer step.
        liars: how many of the replicas send what `attack` makes of their pseudo-gradient, if there is one.
        unequal: whether half of the replicas take only half the steps.
        model: what they train.
    """

    codec: str | None = "int8"
    replicas: int = 4
    steps: int = 10
    feedback: bool = True
    clip: bool = True
    outer: MergeSpec = field(default_factory=MergeSpec)
    liars: int = 0
    attack: Attack | None = None
    unequal: bool = False
    model: ModelSpec = MODEL


def _noise(gradient: Vector, rng: np.random.Generator) -> Vector:
    noise = rng.standard_normal(len(gradient)).astype(np.float32)
    return noise * np.float32(100 * np.linalg.norm(gradient) / np.linalg.norm(noise))


def _not_a_number(gradient: Vector, _: np.random.Generator) -> Vector:
    return np.full_like(gradient, np.nan)


NESTEROV = MergeSpec(rate=Decimal("0.7"), momentum=Decimal("0.5"), first_momentum=Decimal("0.5"))
ROWS = {
    "synchronous": Row(None),
    "float32": Row("float32"),
    "float32, not clipped": Row("float32", clip=False),
    "bfloat16": Row("bfloat16"),
    "int8": Row(),
    "int8, no feedback": Row(feedback=False),
    "top-k": Row("top-k"),
    "top-k, no feedback": Row("top-k", feedback=False),
    "int8, every 50": Row(steps=50),
    "int8, Nesterov .7/.5": Row(outer=NESTEROV),
    "2: synchronous": Row(None, replicas=2),
    "2: int8": Row(replicas=2),
    "2: int8, Nesterov .7/.5": Row(replicas=2, outer=NESTEROV),
    "int8, unequal": Row(unequal=True),
    "int8, unequal, not clipped": Row(unequal=True, clip=False),
    "8: honest": Row(model=SMALL, replicas=8),
    "8: 6 without the liars": Row(model=SMALL, replicas=8, liars=2),
    "8: 2 scale by 100": Row(model=SMALL, replicas=8, liars=2, attack=lambda gradient, _: gradient * np.float32(100)),
    "8: 2 scale by -100": Row(model=SMALL, replicas=8, liars=2, attack=lambda gradient, _: gradient * np.float32(-100)),
    "8: 2 send noise": Row(model=SMALL, replicas=8, liars=2, attack=_noise),
    "8: 2 send NaN": Row(model=SMALL, replicas=8, liars=2, attack=_not_a_number),
    "8: 2 scale by -100, not clipped": Row(
        model=SMALL, replicas=8, liars=2, clip=False, attack=lambda gradient, _: gradient * np.float32(-100)
    ),
}


class Replica:
    """One replica: its model and optimizer, its data, and what its codec still owes."""

    def __init__(self, number: int, compute: StageCompute) -> None:
        self.compute = compute
        self.source = Identity.from_seed(bytes([number]) * 32).peer_id
        self.residual: Vector | None = None
        self.counter = 0

    def add_microbatch(self, train: Windows) -> None:
        """Add the gradient of the next microbatch."""
        microbatch = MicrobatchId(epoch=0, source=self.source, counter=self.counter)
        self.counter += 1
        chosen = window_indices(bytes(8), microbatch, train.count, MICROBATCH_SIZE)
        self.compute.backward(self.compute.forward(torch.from_numpy(train.read(chosen))))


def encode(replica: Replica, gradient: Vector, row: Row, liar_rng: np.random.Generator | None) -> Encoded | None:
    """Return what a replica contributes; None from a liar without an attack."""
    codec = CODECS[row.codec or "float32"]
    if liar_rng is not None:
        if row.attack is None:
            return None
        attacked = row.attack(gradient, liar_rng)
        finite = np.isfinite(attacked).all()
        return codec.encode(attacked) if finite else b"\xff" * codec.encoded_bytes(len(gradient))
    encoded = encode_with_feedback(codec, gradient, replica.residual)
    replica.residual = gradient if row.feedback else None
    return encoded


def reduce(encoded: list[Encoded | None], samples: list[int], codec: Codec, num_values: int, *, clip: bool) -> Vector:
    """Return the mean of contributions as every replica decodes it."""
    result = result_codec(codec)
    reducer = Reducer(counted_samples(samples) if clip else samples, codec)
    mean_gradient = np.empty(num_values, dtype=np.float32)
    for index, count in enumerate(block_counts(num_values)):
        start = index * codec.block_bytes
        blocks = [None if one is None else one[start : start + codec.encoded_bytes(count)] for one in encoded]
        values = mean_gradient[index * BLOCK_VALUES :][:count]
        if clip:
            result.decode_block_into(values, reducer.reduce(blocks, count).encoded)
        else:
            codec.decode_block_into(values, codec.encode(reducer.combine(blocks, count)))
    return mean_gradient


def merge(replicas: list[Replica], state: OuterState, row: Row, steps: list[int], epoch: int) -> OuterState:
    """Merge all replicas; return the next first state."""
    encoded = []
    for number, replica in enumerate(replicas):
        gradient = state.theta_W - vector_of(replica.compute.stage)
        liar_rng = np.random.default_rng([epoch, number]) if number < row.liars else None
        encoded.append(encode(replica, gradient, row, liar_rng))
    mean_gradient = reduce(encoded, steps, CODECS[row.codec or ""], len(state.theta_W), clip=row.clip)
    following = outer_step(state, mean_gradient, row.outer, epoch)
    for replica in replicas:
        set_vector(replica.compute.stage, following.theta_W)
        replica.compute.weights_changed()
    return following


def plan_of(model: ModelSpec, num_steps: int) -> RunPlan:
    """Return the run whose learning rate has fallen after so many steps."""
    return RunPlan(
        name="bench",
        model=model,
        boundary=BoundarySpec(kind="none"),
        optimizer=OptimizerSpec(decay_steps=num_steps),
        epoch=EpochSpec(microbatch_size=MICROBATCH_SIZE, inner_steps=1, target_microbatches=1, deadline_s=1),
    )


def train(row: Row, tokens: int, seed: int, data: Windows) -> StageCompute:
    """Train one row and return its model."""
    num_microbatches = tokens // (MICROBATCH_SIZE * MODEL.sequence_length)
    num_steps = num_microbatches // row.replicas
    plan = plan_of(row.model, num_steps)
    replicas = [Replica(number, StageCompute(plan, 0, seed=seed)) for number in range(row.replicas)]
    first = replicas[0].compute
    if row.codec is None:
        for _ in range(num_steps):
            for replica in replicas:
                replica.compute = first
                replica.add_microbatch(data)
            first.step(len(replicas))
        return first
    state = OuterState(vector_of(first.stage))
    for epoch, start in enumerate(range(0, num_steps, row.steps)):
        wanted = min(row.steps, num_steps - start)
        steps = [max(1, wanted // 2) if row.unequal and number % 2 else wanted for number in range(row.replicas)]
        for replica, count in zip(replicas, steps, strict=True):
            for _ in range(count):
                replica.add_microbatch(data)
                replica.compute.step(1)
        state = merge(replicas, state, row, steps, epoch)
    return first


class Int8By64(Int8):
    """Int8 with a scale for every 64 values."""

    name = "int8, unit 64"
    unit, unit_bytes = 64, 64 + 4


class Int8By1024(Int8):
    """Int8 with a scale for every 1,024 values."""

    name = "int8, unit 1024"
    unit, unit_bytes = 1024, 1024 + 4


def codec_table(data: Windows) -> Table:
    """Compare the codecs on what a replica has to send after its fifth epoch of ten steps."""
    num_steps = 50
    compute = StageCompute(plan_of(MODEL, num_steps), 0, seed=0)
    replica = Replica(0, compute)
    for step in range(num_steps):
        if step == num_steps - 10:
            before = vector_of(compute.stage)
        replica.add_microbatch(data)
        compute.step(1)
    gradient = before - vector_of(compute.stage)
    many = np.tile(gradient, 8)  # 28 MB, more than caches hold
    table = Table("codec", "bytes/value", "ratio", "relative error", "encode GB/s", "decode GB/s", "reduce 8, GB/s")
    for codec in (*CODECS.values(), Int8By64(), Int8By1024()):
        encoded = codec.encode(gradient)
        error = np.linalg.norm(codec.decode(encoded, len(gradient)) - gradient) / np.linalg.norm(gradient)
        contributions: list[Encoded | None] = [encoded] * 8
        speeds = (
            many.nbytes / cpu_s(partial(codec.encode, many)),
            many.nbytes / cpu_s(partial(codec.decode, codec.encode(many), len(many))),
            8 * gradient.nbytes / cpu_s(partial(reduce, contributions, [1] * 8, codec, len(gradient), clip=True)),
        )
        per_value = len(encoded) / len(gradient)
        cells = (f"{per_value:.3f}", f"{4 / per_value:.1f}x", f"{error:.4f}", *(f"{s / 1e9:.2f}" for s in speeds))
        table.add_row(codec.name, *cells)
    return table


def cpu_s(work: Callable[[], object]) -> float:
    """Return the least processor time of five runs."""
    times = []
    for _ in range(5):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def validate(compute: StageCompute, heldout: Windows) -> float:
    """Return the held-out loss in nats per byte."""
    chosen = [Permutation(b"validation", heldout.count)[i] for i in range(VALIDATION_WINDOWS)]
    batches = [chosen[i : i + MICROBATCH_SIZE] for i in range(0, len(chosen), MICROBATCH_SIZE)]
    losses = [compute.evaluate(torch.from_numpy(heldout.read(batch))).loss for batch in batches]
    return mean(loss for loss in losses if loss is not None)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=610_000, help="training tokens per row, of all replicas")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--codecs", action="store_true", help="only compare the codecs' bytes, errors and speeds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "merging.jsonl"
    store = ShardStore(RESULTS / "shards")
    data = data_spec(*corpus.split(corpus.standard_library()), ByteTokenizer(), store)
    windows = Windows(store, data.train, MODEL), Windows(store, data.heldout, MODEL)
    console = Console()
    done: dict[tuple[str, int, int], dict[str, Any]] = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        result: dict[str, Any] = json.loads(line)
        done[result["row"], result["tokens"], result["seed"]] = result
    if arguments.codecs:
        console.print(codec_table(windows[0]))
        return
    table = Table("row", "nats/byte by seed", "CPU-s/run")
    for name in arguments.rows:
        results = []
        for seed in arguments.seeds:
            key = (name, arguments.tokens, seed)
            if key not in done:
                started = time.process_time()
                loss = validate(train(ROWS[name], arguments.tokens, seed, windows[0]), windows[1])
                cost = {"validation": loss, "cpu_s": time.process_time() - started}
                done[key] = {"row": name, "tokens": arguments.tokens, "seed": seed, **cost}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[key]) + "\n")
                console.log(f"{name}, seed {seed}: {loss:.3f}")
            results.append(done[key])
        losses = ", ".join(f"{result['validation']:.3f}" for result in results)
        table.add_row(name, losses, f"{mean(result['cpu_s'] for result in results):.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
