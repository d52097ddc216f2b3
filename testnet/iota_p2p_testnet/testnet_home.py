"""The folder of a testnet: its run, and one home per peer.

- `HOME/run.spec`: the run; made on the first start.
- `HOME/peers/01` and so on: each peer's own home, with its key, address book, shards, state and log.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from iota_p2p.home import default_home
from iota_p2p.run import corpus
from iota_p2p.run.configs import find_config
from iota_p2p.run.founding import found_run
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.run_files import SHARDS_NAME, SPEC_NAME, adopt_shards, read_spec
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunPlan, RunSpec
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_crypto.errors import UserError

CONFIG_NAME = "tiny"


class TestnetHome:
    """A testnet's folder."""

    __test__ = False  # not a pytest class, whatever its name

    def __init__(self, folder: Path, scratch: Path) -> None:
        """Use the folder, which exists; `scratch` has a short path and goes with this session."""
        self.folder = folder
        self.scratch = scratch

    @property
    def run_file(self) -> Path:
        """The run's spec."""
        return self.folder / SPEC_NAME

    def peer(self, number: int) -> Path:
        """Return the home of a peer."""
        return self.folder / "peers" / f"{number:02d}"

    def saved_run(self) -> RunSpec | None:
        """Return the run of an earlier start."""
        return read_spec(self.run_file) if self.run_file.exists() else None

    def found(self, stages: int | None, data: Sequence[str], seed: int) -> RunSpec:
        """Make a run of the small config for `stages` stages; its shards go to the first peer, as a user's would."""
        plan = load_plan(find_config(CONFIG_NAME))
        if stages is not None and stages != plan.model.num_stages:
            plan = with_stages(plan, stages)
        store = ShardStore(self.peer(1) / SHARDS_NAME)
        spec = found_run(plan, _documents(data), ByteTokenizer(), store, seed=seed)
        self.run_file.write_bytes(spec.to_bytes())
        return spec

    def adopt(self, path: Path) -> RunSpec:
        """Take a run that `iota-p2p run new` made: its spec, and its shards from the user's home to the first peer."""
        spec = read_spec(path)
        adopt_shards(spec, default_home() / SHARDS_NAME, self.peer(1))
        self.run_file.write_bytes(spec.to_bytes())
        return spec


def with_stages(plan: RunPlan, stages: int) -> RunPlan:
    """Return the plan cut into this many stages, as even as its layers allow; raises UserError if too many."""
    layers = plan.model.num_layers
    if not 1 <= stages <= layers:
        raise UserError(f"--stages {stages} is not between 1 and {layers}, the layers of the {plan.name} config")
    cuts = tuple(layers * stage // stages for stage in range(1, stages))
    return plan.model_copy(update={"model": plan.model.model_copy(update={"stage_cuts": cuts})})


def _documents(patterns: Sequence[str]) -> Iterable[str]:
    if not patterns:
        return corpus.standard_library()
    return chain.from_iterable([corpus.files(pattern) for pattern in patterns])
