"""How fast bytes really go: measured in passing on the transfers that happen anyway."""

from collections import deque
from dataclasses import dataclass, field

# Smaller ones fit into the buffers between us and the line, and say nothing of it.
MIN_BYTES = 2**20
# A shorter time than this is our own clock's and the scheduler's.
MIN_S = 1e-3
# So many transfers back: an epoch's worth of shards, so that a line that became slow shows.
KEPT_TRANSFERS = 32


@dataclass(slots=True)
class RateMeter:
    """The rate of one direction, in bytes/s.

    The fastest of the latest transfers counts. Several at once share the line, and the slower end decides, so this
    is a lower bound of what the line can do.
    """

    _rates: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TRANSFERS))

    def note(self, size_bytes: int, took_s: float) -> None:
        """Take down a transfer; one that is too small or too short to tell is passed over."""
        if size_bytes >= MIN_BYTES and took_s >= MIN_S:
            self._rates.append(size_bytes / took_s)

    @property
    def bytes_per_s(self) -> int:
        """The measured rate; 0 if nothing was measured yet."""
        return int(max(self._rates, default=0))
