"""`Counters`: which of our microbatches comes next, also after a crash.

A microbatch's id must never be used twice: the second use would look like a replay, and we like a cheat. So counters
are reserved on disk in blocks before they are used; a killed process wastes the rest of its block.
"""

import logging
from pathlib import Path

BLOCK = 64  # a write of twenty bytes every so many microbatches; so many of the data are skipped after a crash

_log = logging.getLogger(__name__)


class Counters:
    """The counters of one run's source; one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._epoch = -1
        self._next = 0
        self._reserved = 0

    def peek(self, epoch: int) -> int:
        """Return the counter that `take` would."""
        if epoch != self._epoch:
            self._epoch, self._next = epoch, self._read(epoch)
            self._reserved = self._next
        return self._next

    def take(self, epoch: int) -> int:
        """Return the next counter of an epoch; it will not come again, in this process or another."""
        counter = self.peek(epoch)
        self._next += 1
        if self._next > self._reserved:
            self._reserved = counter + BLOCK
            self._write()
        return counter

    def _read(self, epoch: int) -> int:
        try:
            of, reserved = map(int, self._path.read_text("ascii").split())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            _log.warning("counters not read", extra={"reason": str(error)})
            return 0
        return reserved if of == epoch else 0

    def _write(self) -> None:
        """Write what is reserved; not flushed, because it has to survive us and not a power cut."""
        scratch = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(f"{self._epoch} {self._reserved}\n", "ascii")
            scratch.replace(self._path)
        except OSError as error:  # a full disk costs us our name after the next crash, not the training now
            _log.warning("counters not written", extra={"reason": str(error)})
