"""What cheats cost a run, and what gives them away: a table of docs/butterfly.md.

    python -m bench.adversaries
    python -m bench.adversaries --rows honest nan --epochs 4

Eight whole peers train one model on real text in the simulated network, each a replica of its only stage and a source;
two of them cheat as the testnet's peers of that name do. Every row ends after the same number of epochs, and so of
tokens. The loss is of held-out text, with the weights that an honest replica begins the last epoch with. Time is
virtual; one seed gives one simulated network, but tasks run in any order, so losses differ a little from run to run.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from time import process_time

import torch
import trio
from rich.console import Console
from rich.table import Table
from trio.testing import MockClock

from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.record import MergeRecord
from iota_p2p.model.compute import StageCompute
from iota_p2p.model.state import set_vector
from iota_p2p.run.corpus import standard_library
from iota_p2p.run.data import RunData
from iota_p2p.run.founding import found_run
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import BoundarySpec, EpochSpec, MergeSpec, ModelSpec, OptimizerSpec, RunPlan, RunSpec
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_testnet.merge_adversaries import NAMES, merge_twist
from iota_p2p_testnet.training_swarm import Costs, Member, TrainingSwarm, open_training_swarm

REPLICAS, LIARS = 8, 2
HONEST = "honest"
NUM_DOCUMENTS = 120  # of the standard library: 2 MB
HELDOUT_BATCHES = 64  # of 256 tokens: the same for every row
# A microbatch takes a tenth of a virtual second, so that an epoch takes two.
COSTS = Costs(forward_s=0.03, backward_s=0.06, background_s=0.03)
MOST_S = 3600.0  # virtual
PLAN = RunPlan(
    name="adversaries",
    model=ModelSpec(
        vocab_size=256, width=64, num_layers=2, num_heads=2, num_kv_heads=2, ffn_width=176, sequence_length=64
    ),
    boundary=BoundarySpec(kind="none"),
    optimizer=OptimizerSpec(warmup_steps=10),
    epoch=EpochSpec(microbatch_size=4, inner_steps=5, target_microbatches=160, deadline_s=600),
    merge=MergeSpec(),
)


@dataclass
class Result:
    """What came of one row.

    Attributes:
        nats: held-out loss.
        named: how many cheats proofs name, by kind of proof.
        slandered: honest peers that a proof names.
        charged: rules that cheats broke, by count, as the honest ones say.
        clipped: whether honest members scaled a cheat's blocks down.
        lost: shards that kept their old value.
        apart: epochs that honest replicas began with different weights.
        cpu_s: processor time.
    """

    nats: float = 0.0
    named: Counter[str] = field(default_factory=Counter)
    slandered: int = 0
    charged: Counter[str] = field(default_factory=Counter)
    clipped: bool = False
    lost: int = 0
    apart: int = 0
    cpu_s: float = 0.0


class Watch:
    """Notes what honest members of a swarm report."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.theta: Vector | None = None
        self.faults: list[bytes] = []
        self.records: list[MergeRecord] = []

    def note(self, member: Member, record: MergeRecord) -> None:
        """Note what a replica begins an epoch with."""
        self.records.append(record)
        held = member.trainer.share.stages.get(record.stage)
        if record.epoch == self.epochs and record.how == "merged" and held is not None and held.base is not None:
            self.theta = held.base.theta_W

    @property
    def apart(self) -> int:
        """In how many epochs merged results differed."""
        results: dict[int, set[bytes]] = {}
        for record in self.records:
            if record.how == "merged":
                results.setdefault(record.epoch, set()).add(record.theta_digest)
        return sum(len(digests) > 1 for digests in results.values())


async def _train(name: str, spec: RunSpec, epochs: int, folder: Path) -> tuple[Watch, Result]:
    watch, result = Watch(epochs), Result()
    async with open_training_swarm(1, spec, folder) as swarm:
        for number in range(REPLICAS):
            lies = name != HONEST and number >= REPLICAS - LIARS
            twist = merge_twist(name) if lies else None
            member = await swarm.start(number, pinned=(0,), costs=COSTS, twist=twist)
            if not lies and member.trainer.merger is not None:
                member.trainer.merger.on_merged = partial(watch.note, member)
                member.trainer.merger.on_fault = watch.faults.append
        await swarm.until(lambda: watch.theta is not None, MOST_S)
        await trio.sleep(1)  # votes on the last merges
        _judge(name, swarm, watch, result)
    return watch, result


def _judge(name: str, swarm: TrainingSwarm, watch: Watch, result: Result) -> None:
    members = {member.peer.identity.peer_id: member.number for member in swarm.members.values()}
    liars = {peer_id for peer_id, number in members.items() if name != HONEST and number >= REPLICAS - LIARS}
    named = {(verdict.kind, verdict.liar) for verdict in map(verify_fault, watch.faults)}
    result.named = Counter(kind for kind, liar in named if liar in liars)
    result.slandered = len({liar for _, liar in named} - liars)
    for peer_id, member in swarm.members.items():
        if peer_id not in liars:
            for liar in liars:
                result.charged.update(member.peer.network.ledger.counts(liar))
    result.lost = sum(record.lost_shards for record in watch.records) // max(1, REPLICAS - len(liars))
    result.clipped = any(
        record.members and {record.members[place] for place in record.clipped} & liars for record in watch.records
    )


def run_row(name: str, spec: RunSpec, epochs: int, folder: Path) -> Result:
    """Return what came of a run with two cheats of a kind."""
    started_s = process_time()
    clock = MockClock(autojump_threshold=0)
    watch, result = trio.run(_train, name, spec, epochs, folder, clock=clock)
    assert watch.theta is not None  # noqa: S101 - `_train` has waited for it
    compute, data = StageCompute(spec, 0, seed=spec.seed), RunData(spec, ShardStore(folder / "shards"))
    set_vector(compute.stage, watch.theta)
    losses = [compute.evaluate(torch.from_numpy(data.heldout_window(i)), None).loss for i in range(HELDOUT_BATCHES)]
    result.nats = mean(loss for loss in losses if loss is not None)
    result.apart, result.cpu_s = watch.apart, process_time() - started_s
    return result


def table_of(results: Mapping[str, Result]) -> Table:
    """Return the table."""
    table = Table("two of eight", "nats/byte", "against honest", "named by a proof", "charged with", "clipped", "lost")
    honest = results.get(HONEST)
    for name, result in results.items():
        against = "" if honest is None else f"{100 * (result.nats / honest.nats - 1):+.1f} %"
        named = ", ".join(f"{kind} {count}" for kind, count in sorted(result.named.items()))
        charged = ", ".join(rule for rule, _ in result.charged.most_common(3))
        clipped = "yes" if result.clipped else ""
        table.add_row(name, f"{result.nats:.3f}", against, named, charged, clipped, str(result.lost))
    return table


def main() -> None:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = [HONEST, *sorted(NAMES)]
    parser.add_argument("--rows", nargs="+", default=rows, choices=rows)
    parser.add_argument("--epochs", type=int, default=6, help="each of 40,960 tokens")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # of what cheats do there is no end
    console, results = Console(width=140), {}
    for name in arguments.rows:
        with TemporaryDirectory() as folder:
            documents = islice(standard_library(), NUM_DOCUMENTS)
            spec = found_run(PLAN, documents, ByteTokenizer(), ShardStore(Path(folder) / "shards"), seed=0)
            results[name] = result = run_row(name, spec, arguments.epochs, Path(folder))
        slander = f"; {result.slandered} HONEST NAMED" if result.slandered else ""
        apart = f"; {result.apart} epochs apart" if result.apart else ""
        console.log(f"{name}: {result.nats:.3f} nats/byte, {result.cpu_s:.0f} CPU-s{slander}{apart}")
    console.print(table_of(results))


if __name__ == "__main__":
    main()
