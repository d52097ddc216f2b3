"""`Finding`: the outcome of one check; and the table of all checks with their stable codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from iota_p2p_crypto.errors import LocalProtocolError

# A code keeps its meaning for ever: people search for it. D1xx this machine, D2xx our node, D3xx bootstrap peers.
# docs/doctor.md explains each; a test compares the two tables.
CHECKS: Mapping[str, str] = {
    "D101": "libp2p daemon runs",
    "D102": "home folder is writable",
    "D103": "identity key is usable",
    "D104": "home is not in use",
    "D105": "disk space",
    "D106": "memory",
    "D107": "torch device",
    "D201": "listen address is free",
    "D202": "node starts",
    "D203": "others can dial us",
    "D204": "clock agrees",
    "D205": "identity is used only here",
    "D301": "bootstrap address is well-formed",
    "D302": "bootstrap host accepts TCP",
    "D303": "bootstrap peer is who it should be",
    "D304": "bootstrap peer agrees to talk",
}


class Status(Enum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"  # works, but not well, or not for long
    FAIL = "fail"  # will not work until it is fixed
    SKIPPED = "skipped"  # could not be checked; the cause says why


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        code: which check, a key of CHECKS.
        status: what it came to.
        cause: what was seen, with values.
        fix: what to do about it, exactly; only empty if nothing needs doing.
    """

    code: str
    status: Status
    cause: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.code not in CHECKS:
            raise LocalProtocolError(f"expected a code in CHECKS, got {self.code}")
        if self.status in (Status.WARN, Status.FAIL) and not self.fix:
            raise LocalProtocolError(f"expected a fix for {self.code}, got none: {self.cause}")

    @property
    def title(self) -> str:
        """What was checked, in a few words."""
        return CHECKS[self.code]
