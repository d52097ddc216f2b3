"""What a testnet's chain has paid, in the words of its settler (`settler_process`). Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

WEI_PER_GWEI = 10**9  # one unit of a result's payouts is a gwei
# Ours, and no stranger's, but a line without end must not fill our memory: 512 peers have 70 bytes each, twice.
MAX_LINE_BYTES = 256 * 1024

Wei = Annotated[int, Field(ge=0)]


class Standing(BaseModel):
    """How the settlement stands; the last word counts.

    Attributes:
        contract: its address; empty before it is deployed.
        state: the file from which `chain dev` goes on.
        epochs_settled, claims_paid, total_paid: what the contract did; wei.
        pending: certified epochs that are not settled.
        paid, balances: wei by peer id; what claims brought, and what its account holds.
        failures: what the audit at the end found; None before.
        note: what has just happened, for people.
    """

    model_config = ConfigDict(frozen=True)

    contract: str = ""
    state: str = ""
    epochs_settled: Annotated[int, Field(ge=0)] = 0
    claims_paid: Annotated[int, Field(ge=0)] = 0
    total_paid: Wei = 0
    pending: tuple[int, ...] = ()
    paid: Mapping[str, Wei] = {}
    balances: Mapping[str, Wei] = {}
    failures: tuple[str, ...] | None = None
    note: str = ""


@dataclass(slots=True)
class Payments:
    """What the launcher knows of the settlement.

    Attributes:
        off: why nothing is settled; empty if it is.
        standing: the settler's last word.
    """

    off: str = "not asked for"
    standing: Standing = field(default_factory=Standing)

    def hear(self, line: bytes) -> str:
        """Take a line of the settler's; return what is to be told of it, if anything."""
        try:
            self.standing = Standing.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            return f"the settler said: {line[:200].decode(errors='replace')}"
        return self.standing.note

    def to_summary(self) -> dict[str, Any] | None:
        """Return what a summary holds of it; None if nothing was to be settled."""
        if self.off:
            return None
        fields = self.standing.model_dump(mode="json", exclude={"note", "state"})
        return {**fields, "audit": audit_in_words(self.standing)}


def audit_in_words(standing: Standing) -> str:
    """Return what the audit at the end came to."""
    if standing.failures is None:
        return "not made"
    return f"{len(standing.failures)} failures" if standing.failures else "clean"


def gwei(wei: int) -> str:
    """Return an amount for people."""
    return f"{wei // WEI_PER_GWEI:,} gwei"
