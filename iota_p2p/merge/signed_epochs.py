"""`SignedEpochs`: of which epoch we may have signed rosters last, for each stage, also after a crash.

A member signs one roster of each attempt. One that was killed and came back within the same merge no longer knows what
it signed, so it takes no part in that one and catches up: signing twice would be proved against it.
"""

import json
import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)


class SignedEpochs:
    """One run's note of it; one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._latest = self._read()

    def begin(self, stage: int, epoch: int) -> bool:
        """Note that we may sign rosters of an epoch from now on; return False if we may have before.

        Only the last epoch counts: a network that was stopped as a whole may count from an earlier one again.
        """
        if self._latest.get(stage) == epoch:
            return False
        self._latest[stage] = epoch
        self._write()
        return True

    def _read(self) -> dict[int, int]:
        try:
            fields = json.loads(self._path.read_text("ascii"))
            return {int(stage): int(epoch) for stage, epoch in fields.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            _log.warning("signed epochs not read", extra={"reason": str(error)})
            return {}

    def _write(self) -> None:
        """Write it, so that it survives a power cut, too."""
        scratch = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("w", encoding="ascii") as file:
                json.dump(self._latest, file)
                file.flush()
                os.fsync(file.fileno())  # some milliseconds, once an epoch
            scratch.replace(self._path)
        except OSError as error:  # a full disk costs us our name if we are killed in a merge, not the merge now
            _log.warning("signed epochs not written", extra={"reason": str(error)})
