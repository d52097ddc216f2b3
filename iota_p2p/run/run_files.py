"""A run on disk: its spec in a file, and taking its packed shards over into a peer's own folder."""

import os
import shutil
from pathlib import Path

from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import MAX_SPEC_BYTES, RunId, RunSpec, ShardRef
from iota_p2p_crypto.errors import MalformedError, RemoteProtocolError, UserError

STATES_NAME = "state"  # in a peer's home
SPEC_NAME = "run.spec"  # in a peer's home
SHARDS_NAME = "shards"  # in a peer's home, and where `iota-p2p run new` packs to by default

_FOLDER_DIGITS = 16  # of a run id: enough to tell the runs of one home apart


def state_folder(states: Path, run_id: RunId) -> Path:
    """Return where a run's states and notes are."""
    return states / run_id.hex()[:_FOLDER_DIGITS]


def read_spec(path: Path) -> RunSpec:
    """Return the run in a file; raises UserError if it cannot be read, MalformedError if it is no run."""
    try:
        with path.open("rb") as file:
            return RunSpec.from_bytes(file.read(MAX_SPEC_BYTES + 1))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except RemoteProtocolError as error:
        raise MalformedError(error.rule, f"{path} is no run's spec: {error}") from error


def keep_spec(path: Path, spec: RunSpec) -> None:
    """Write a spec, whole or not at all; raises UserError if the file already holds another run."""
    if path.exists():
        if read_spec(path).run_id != spec.run_id:
            raise UserError(f"{path} is of another run: give this one its own --home")
        return
    temporary = path.with_suffix(".new")
    temporary.write_bytes(spec.to_bytes())
    temporary.replace(path)


def adopt_shards(spec: RunSpec, packed: Path, home: Path) -> None:
    """Put the shards that a peer's home lacks there, from the folder they were packed to.

    Hard links where the disk allows: shards are never written to again.

    Raises:
        UserError: if one is in neither place.
    """
    source, store = ShardStore(packed), ShardStore(home / SHARDS_NAME)
    for ref in (*spec.data.train, *spec.data.heldout):
        if store.has(ref):
            continue
        if not source.has(ref):
            raise UserError(
                f"shard {ref.digest} of the run is neither in {store.folder} nor in {packed}:"
                f" set IOTA_P2P_HOME to the home it was packed in, or pack it with 'run new --store {store.folder}'"
            )
        _link(source.folder / _name(ref), store.folder / _name(ref))


def _name(ref: ShardRef) -> str:
    return f"{ref.digest}.tokens"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
