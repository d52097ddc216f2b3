"""Patience: how long to wait for a stage, learnt from how long it took before.

A constant timeout is wrong for somebody: too short for a slow machine, too long for everyone who waits for a dead
one. The timeout is the median of the last calls plus a multiple of their spread, within a floor and a ceiling.
"""

from collections import deque
from statistics import median

from iota_p2p_protocols.errors import LocalProtocolError

WINDOW = 32  # calls remembered: a change of speed rules after half of them
MIN_SAMPLES = 5  # fewer say nothing about the spread
NUM_SPREADS = 8  # of normally distributed durations one in ten million is longer than 5.4 standard deviations
# The spread is taken as at least this part of the median: on a quiet machine it is almost nil, and the first pause
# would be taken for a death. With 8 spreads no timeout is below three medians.
MIN_SPREAD_FRACTION = 0.25
FLOOR_S = 0.5  # garbage collection, a busy core or a lost packet may cost this much at any time
CEILING_S = 120.0  # nobody waits longer for one microbatch; also the patience with a stage never met before


class Patience:
    """The durations of the last calls to one stage, from one caller's view."""

    def __init__(self, *, floor_s: float = FLOOR_S, ceiling_s: float = CEILING_S) -> None:
        if not 0 < floor_s <= ceiling_s:
            raise LocalProtocolError(f"expected 0 < floor <= ceiling, got {floor_s} and {ceiling_s} s")
        self._floor_s = floor_s
        self._ceiling_s = ceiling_s
        self._durations_s: deque[float] = deque(maxlen=WINDOW)

    def record(self, duration_s: float) -> None:
        """Note how long a call took, or how long it was waited for in vain.

        Calls that timed out must be noted, too: were only successes remembered, a stage that became slower than its
        timeout would never be waited for long enough again.
        """
        if not 0 <= duration_s < float("inf"):
            raise LocalProtocolError(f"expected a finite duration, got {duration_s} s")
        self._durations_s.append(duration_s)

    def timeout_s(self) -> float:
        """Return how long to wait for the next call."""
        if len(self._durations_s) < MIN_SAMPLES:
            return self._ceiling_s
        middle_s = median(self._durations_s)
        deviation_s = median(abs(duration_s - middle_s) for duration_s in self._durations_s)
        spread_s = max(deviation_s, MIN_SPREAD_FRACTION * middle_s)
        return min(max(middle_s + NUM_SPREADS * spread_s, self._floor_s), self._ceiling_s)
