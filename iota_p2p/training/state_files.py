"""`StateFiles`: the states of our stages on disk, for the next start.

    SHA-256 of everything that follows, 32 bytes  ||  "IOTASTA1"  ||  length of the header, 4 bytes big-endian
    ||  header, canonical {"epoch", "num_steps", "run_id", "stage"}  ||  checkpoint

One file per run and stage. A save that fails or is killed leaves the last one as it was; a file with any byte
changed, or cut short anywhere, is set aside and never loaded.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from iota_p2p.run.run_files import state_folder
from iota_p2p.run.spec import RunId
from iota_p2p.training.stage_state import StageState
from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import DIGEST_BYTES
from iota_p2p_crypto.errors import IotaError, MalformedError, RemoteProtocolError
from iota_p2p_protocols.fetch import StageIndex
from iota_p2p_protocols.message import Count, DigestField, Message

_MAGIC = b"IOTASTA1"
_LENGTH_BYTES = 4
_MAX_HEADER_BYTES = 256  # four small fields; 60 to 90 bytes
_PREFIX_BYTES = DIGEST_BYTES + len(_MAGIC) + _LENGTH_BYTES


class StateNotSavedError(IotaError):
    """The disk would not take a state: full, read-only, gone. The file of the last save is untouched."""


class DamagedStateError(IotaError):
    """A state file was not what had been saved. It has been set aside; its stage has to come from elsewhere."""


class _Header(Message):
    """What a file says of its state.

    Attributes:
        run_id: the run it belongs to.
        stage: the stage's index.
        epoch: in which it was saved.
        num_steps: inner steps it has behind it.
    """

    run_id: DigestField
    stage: StageIndex
    epoch: Count
    num_steps: Count


class StateFiles:
    """The state files of one run under a home's `state` folder; one process at a time (see `home_lock`)."""

    def __init__(self, folder: Path, run_id: RunId) -> None:
        self.folder = state_folder(folder, run_id)
        self._run_id = run_id

    def save(self, state: StageState) -> None:
        """Replace a stage's file; when this returns, the new one survives a power cut.

        Raises:
            StateNotSavedError: if the disk does not take it.
        """
        path = self._path(state.stage)
        scratch = path.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._write(scratch, state)
                scratch.replace(path)
            except OSError:
                scratch.unlink(missing_ok=True)  # what it took is room for the next attempt
                raise
            _sync_folder(self.folder)
        except OSError as error:
            raise StateNotSavedError(
                f"stage {state.stage} could not be saved to {path}: {error.strerror}; the last save is kept"
            ) from error

    def load(self, stage: int) -> StageState | None:
        """Return a stage's last saved state, or None if there is none.

        Raises:
            DamagedStateError: if there is a file and it is damaged; it is set aside first.
        """
        path = self._path(stage)
        try:
            return self._parse(path.read_bytes(), stage)
        except FileNotFoundError:
            return None
        except RemoteProtocolError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)  # only the last damaged one is kept
            raise DamagedStateError(f"the saved state of stage {stage} is damaged ({error}): now {aside}") from error
        except OSError as error:
            raise DamagedStateError(f"the saved state of stage {stage} cannot be read: {error.strerror}") from error

    def stages(self) -> Sequence[int]:
        """Return the stages that have a file, in order."""
        return sorted(int(path.stem.removeprefix("stage-")) for path in self.folder.glob("stage-[0-9]*.state"))

    def forget(self, stage: int) -> None:
        """Remove a stage's file, as when the stage is held no longer."""
        self._path(stage).unlink(missing_ok=True)

    def _path(self, stage: int) -> Path:
        return self.folder / f"stage-{stage:03d}.state"

    def _write(self, path: Path, state: StageState) -> None:
        fields = _Header(run_id=self._run_id, stage=state.stage, epoch=state.epoch, num_steps=state.num_steps)
        header = canonical.encode(fields.to_fields())
        prefix = _MAGIC + len(header).to_bytes(_LENGTH_BYTES, "big") + header
        hasher = hashlib.sha256(prefix)
        hasher.update(state.checkpoint)
        with path.open("wb") as file:
            file.write(hasher.digest())
            file.write(prefix)
            file.write(state.checkpoint)
            file.flush()
            os.fsync(file.fileno())

    def _parse(self, data: bytes, stage: int) -> StageState:
        """Return the state in a file; raises MalformedError if it is not a whole one of this run and stage."""
        if hashlib.sha256(memoryview(data)[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
            raise MalformedError("state-file-digest", "expected the digest of what was saved, got other bytes")
        if data[DIGEST_BYTES : DIGEST_BYTES + len(_MAGIC)] != _MAGIC:
            raise MalformedError("state-file-form", f"expected {_MAGIC!r}, got another form")
        start = _PREFIX_BYTES + int.from_bytes(data[_PREFIX_BYTES - _LENGTH_BYTES : _PREFIX_BYTES], "big")
        fields = canonical.decode(data[_PREFIX_BYTES:start], max_bytes=_MAX_HEADER_BYTES)
        header = _Header.from_fields(fields)
        if (header.run_id, header.stage) != (self._run_id, stage):
            raise MalformedError(
                "state-file-stage", f"expected stage {stage} of our run, got {header.stage} or another"
            )
        return StageState(stage, header.epoch, header.num_steps, data[start:])


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
