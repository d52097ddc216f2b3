"""What both halves of the network benchmark share."""

from collections.abc import Sequence
from dataclasses import dataclass

from iota_p2p_crypto.identity import Identity

LISTEN = "/ip4/127.0.0.1/tcp/0"


@dataclass(frozen=True)
class Row:
    """One line of the table; `reached` is None where no mark was set."""

    name: str
    figure: str
    reach: str = ""
    reached: bool | None = None


def identity(number: int) -> Identity:
    """Return the identity of a bench peer."""
    return Identity.from_seed(number.to_bytes(32, "big"))


def percentile_ms(times_s: Sequence[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    ordered = sorted(times_s)
    return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
