"""`EpochNote`: in which epoch a run was when we were last in it.

Whoever starts among others asks them. A network that was stopped as a whole goes on from its first peer's note: in an
earlier epoch its peers could sign nothing anew that is signed once an epoch, and would number their microbatches alike.
"""

import logging
from pathlib import Path

_log = logging.getLogger(__name__)


class EpochNote:
    """One run's note in the folder of its states; one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "epoch"

    def read(self) -> int:
        """Return the epoch; 0 if there is none."""
        try:
            epoch = int(self._path.read_text("ascii"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            _log.warning("epoch not read", extra={"reason": str(error)})
            return 0
        return max(0, epoch)

    def write(self, epoch: int) -> None:
        """Note an epoch; not flushed, because it has to survive us and not a power cut."""
        scratch = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(f"{epoch}\n", "ascii")
            scratch.replace(self._path)
        except OSError as error:  # on a full disk the next start may be in an earlier epoch
            _log.warning("epoch not written", extra={"reason": str(error)})
