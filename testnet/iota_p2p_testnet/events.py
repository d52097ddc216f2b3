"""What a peer says on its standard output (`iota-p2p peer --json`), one JSON object per line, as this testnet reads it.

Only what is used here is named; fields that a later peer adds are no error.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# A status is below 2 kB even with all stages of a large run; a line without end must not fill our memory.
MAX_LINE_BYTES = 256 * 1024
_MAX_PEERS = 1000  # rows of a score record
_MAX_TEXT = 300  # of a line that is shown as it is

_MAX_MATRIX = 65 * 64  # 64 members, a line each

Total = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageStatus(_Said):
    """One stage that a peer holds: serving, or still fetching its state."""

    stage: Annotated[int, Field(ge=0)]
    serving: bool
    steps: Total


class Microbatches(_Said):
    """Microbatches of this life: sent and completed as a source, calls retried elsewhere, and given up."""

    sent: Total = 0
    completed: Total = 0
    retried: Total = 0
    lost: Total = 0


class Bytes(_Said):
    """Payload bytes sent in this life, by what they were."""

    activations: Total = 0
    gradients: Total = 0
    control: Total = 0
    custody: Total = 0


class BoundaryStatus(_Said):
    """What travels between stages, and how many times smaller than float32 of all channels it is."""

    name: str
    forward_ratio: Finite | None = None
    backward_ratio: Finite | None = None


class Status(_Said):
    """A peer's state, said about once per second; counters start at zero with every life of the process."""

    run_id: str
    epoch: Total
    stages: tuple[StageStatus, ...] = ()
    tokens: Total = 0
    loss_nats: Finite | None = None
    val_loss_nats: Finite | None = None
    microbatches: Microbatches = Microbatches()
    bytes: Bytes = Bytes()
    boundary: BoundaryStatus | None = None
    waiting_for: str | None = None
    live: Total = 0
    lane_busy_s: Finite = 0.0


class Starting(_Said):
    """The process runs and has its identity."""

    peer_id: str


class Address(_Said):
    """Where others reach the peer."""

    address: str


class Recovered(_Said):
    """A stage that nobody served was brought back: where its state came from, and how far it is."""

    stage: Total
    kind: Annotated[str, Field(max_length=20)]
    num_steps: Total


class Scores(_Said):
    """A validator has signed its record of an epoch: scores by peer, and what pulled some below half."""

    epoch: Total
    scores: dict[str, Total] = Field(max_length=_MAX_PEERS)
    work: dict[str, Total] = Field(max_length=_MAX_PEERS)
    flagged: dict[str, str] = Field(max_length=_MAX_PEERS)


class Replay(_Said):
    """A validator has replayed a stage of a peer: what that showed, and why."""

    epoch: Total
    peer: str
    stage: Total
    verdict: Annotated[str, Field(max_length=20)]
    reason: Annotated[str, Field(max_length=20)]


class Result(_Said):
    """A quorum has certified an epoch's result: who voted for it, what everybody is paid, who showed no record yet."""

    epoch: Total
    validators: tuple[str, ...] = Field(max_length=_MAX_PEERS)
    payouts: dict[str, Total] = Field(max_length=_MAX_PEERS)
    pot: Total
    silent: tuple[str, ...] = Field(max_length=_MAX_PEERS)


class Merged(_Said):
    """A stage has gone on to a new epoch: how, with whom, and what the merge of its replicas came to.

    `epoch` is the one that ended. `matrix` has a line for each member: = agreed, x did not, ~ other inputs, . silent.
    """

    epoch: Total
    stage: Total
    how: Annotated[str, Field(max_length=20)]
    digest: Annotated[str, Field(max_length=64)]
    seconds: Finite
    members: tuple[str, ...] = Field(max_length=_MAX_PEERS)
    shards: Total
    lost_shards: Total
    faults: Total
    named: tuple[str, ...] = Field(max_length=_MAX_PEERS)
    passed_over: tuple[str, ...] = Field(max_length=_MAX_PEERS)
    bytes_up: Total
    bytes_formula: Total
    matrix: Annotated[str, Field(max_length=_MAX_MATRIX)]


class Note(_Said):
    """Anything else, for the log: a joined peer, a failure to join, a line we cannot read."""

    text: str


PeerEvent = Status | Starting | Address | Recovered | Merged | Scores | Replay | Result | Note
_KINDS: dict[str, type[Status | Starting | Address | Recovered | Merged | Scores | Replay | Result]] = {
    "status": Status,
    "starting": Starting,
    "address": Address,
    "recovered": Recovered,
    "merged": Merged,
    "replay": Replay,
    "scores": Scores,
    "result": Result,
}


def parse_event(line: bytes) -> PeerEvent:
    """Return what a line says; one that says nothing known is a note, never an error: the peer goes on anyway."""
    try:
        fields: Any = json.loads(line)
        kind = _KINDS.get(fields["event"])
        if kind is not None:
            return kind.model_validate(fields)
    except (ValueError, RecursionError, TypeError, KeyError) as error:  # json's and unicode's errors are ValueErrors
        if isinstance(error, ValidationError):
            return Note(text=f"not understood ({error.errors()[0]['loc']}): {_shown(line)}")
    return Note(text=_shown(line))


def _shown(line: bytes) -> str:
    text = line[:_MAX_TEXT].decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
