"""What a testnet knows of one peer, over all lives of its process. Pure."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from iota_p2p_testnet.events import StageStatus, Status

State = Literal["waiting", "starting", "running", "killed", "ended", "stopped"]


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters that only grow; see `events.Status` for each."""

    tokens: int = 0
    sent: int = 0
    completed: int = 0
    retried: int = 0
    lost: int = 0
    activations: int = 0
    gradients: int = 0
    control: int = 0
    custody: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        """Return both together."""
        return Totals(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @classmethod
    def of(cls, status: Status | None) -> "Totals":
        """Return what one life has counted so far."""
        if status is None:
            return cls()
        work, sent = status.microbatches, status.bytes
        return cls(
            tokens=status.tokens,
            sent=work.sent,
            completed=work.completed,
            retried=work.retried,
            lost=work.lost,
            activations=sent.activations,
            gradients=sent.gradients,
            control=sent.control,
            custody=sent.custody,
        )


@dataclass(slots=True)
class PeerRow:
    """One peer, over all lives of its process.

    Attributes:
        state: `waiting` for its first start; `ended` by itself, `killed` by us, `stopped` with the testnet.
        status: its last word of the present life, or of the last one while it is down.
        earlier: counters of the lives before.
        last_val: the last validation loss it said.
        adversary: how it cheats; empty for an honest peer.
    """

    number: int
    state: State = "waiting"
    peer_id: str = ""
    address: str = ""
    status: Status | None = None
    earlier: Totals = Totals()
    lives: int = 0
    last_val: float | None = None
    adversary: str = ""

    @property
    def totals(self) -> Totals:
        """Counters of all lives."""
        return self.earlier + Totals.of(self.status)

    @property
    def is_up(self) -> bool:
        """Whether its process should be running."""
        return self.state in ("starting", "running")

    @property
    def stages(self) -> Sequence[StageStatus]:
        """The stages it holds now."""
        return self.status.stages if self.status is not None and self.is_up else ()
