"""`WorkShare`: what every part of training works with, and the counts it keeps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from iota_p2p.run.data import RunData
from iota_p2p.run.spec import RunSpec
from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.lane import Lane
from iota_p2p.training.payload_store import PayloadStore
from iota_p2p.training.return_store import ReturnStore
from iota_p2p.training.routes import Routes
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.activation import ActivationTerms
from iota_p2p_protocols.loss_record import LossRecord
from iota_p2p_protocols.scoring.evidence import Role


@dataclass(slots=True)
class Counts:
    """What went through this peer since it started.

    Attributes:
        sent: microbatches it started as a source.
        completed: of those, the ones whose gradient came back.
        retried: calls that failed or were declined and were made again to another replica, or later.
        lost: microbatches of its own it had to give up.
        activation_bytes: encoded activations it sent.
        gradient_bytes: encoded gradients it sent.
        tokens: in the microbatches completed.
        loss_nats: moving average of the loss of its own microbatches; None before the first.
    """

    sent: int = 0
    completed: int = 0
    retried: int = 0
    lost: int = 0
    activation_bytes: int = 0
    gradient_bytes: int = 0
    tokens: int = 0
    loss_nats: float | None = None


@dataclass(slots=True)
class WorkShare:
    """A peer's share in a run's work.

    Attributes:
        identity: who we are.
        spec: the run.
        terms: what both ends of a call know beforehand.
        data: the run's tokens.
        lane: our device.
        routes: who else holds what.
        payloads: what we sent and received lately.
        returns: what others signed lately of the gradients that they sent back to us.
        stages: the stages we hold, by index.
        epoch: the epoch we are in.
        draining: True once we take no new microbatches.
        leaving: stages that we are letting go, which take none either.
        counts: for people and benchmarks.
        waiting_for: what we are waiting for, in words for people; empty if for nothing.
        clock: Unix seconds.
        witness: told of every loss record that we signed as the last stage, or got home as its source.
        work_begun, work_stepped, work_closed: told of every stage's epochs and steps, as `HeldStage` says.
    """

    identity: Identity
    spec: RunSpec
    terms: ActivationTerms
    data: RunData
    lane: Lane
    routes: Routes
    payloads: PayloadStore
    returns: ReturnStore = field(default_factory=ReturnStore)
    stages: dict[int, HeldStage] = field(default_factory=dict)
    epoch: int = 0
    draining: bool = False
    leaving: set[int] = field(default_factory=set)
    counts: Counts = field(default_factory=Counts)
    waiting_for: str = ""
    clock: Callable[[], float] = time.time
    witness: Callable[[Verified[LossRecord], Role], None] = lambda _record, _role: None
    work_begun: Callable[[HeldStage], None] = lambda _: None
    work_stepped: Callable[[HeldStage], None] = lambda _: None
    work_closed: Callable[[HeldStage], None] = lambda _: None

    @property
    def tokens_per_microbatch(self) -> int:
        """How many tokens a microbatch has."""
        return self.spec.epoch.microbatch_size * self.spec.model.sequence_length
