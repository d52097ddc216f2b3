"""Fast checks: what can be said of every peer in every epoch without a model (Gauntlet's first stage, 2505.21684).

All results are parts per million of what they ought to be, never negative, so that they may be compared and
multiplied without two faults making a virtue.
"""

from collections.abc import Sequence
from math import isqrt

PPM = 1_000_000
# Outer steps behind at which a peer is as good as absent.
MAX_BEHIND = 5


def presence_ppm(seen: Sequence[bool]) -> int:
    """Return the share of looks at which a peer was there; 0 without a look."""
    return PPM * sum(seen) // len(seen) if seen else 0


def synchronisation_ppm(steps_behind: int) -> int:
    """Return Gauntlet's synchronisation score: max(0, 1 - min(x, 5) / 5) ^ 2.5, x outer steps behind.

    In integers, rounded down: u ^ 2.5 = sqrt(u ^ 5).
    """
    left = MAX_BEHIND - min(max(steps_behind, 0), MAX_BEHIND)
    return isqrt(left**5 * PPM**2 // MAX_BEHIND**5)


def steps_behind(base: bytes, recent: Sequence[bytes]) -> int:
    """Return how many outer steps old the weights are that a peer trained from.

    Args:
        base: the digest in its contribution.
        recent: the stage's merged digests, newest first; a base that is in none of them counts as MAX_BEHIND.
    """
    return min(recent.index(base), MAX_BEHIND) if base in recent else MAX_BEHIND
