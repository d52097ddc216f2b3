"""The source: a holder of stage 0 starts microbatches of its own and sees them home.

Microbatches in flight are bounded. A microbatch of an epoch that has closed cannot come home any more (its stages
refuse it); it is then given up, and counted.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from iota_p2p.model.boundary.codes import DivergedError
from iota_p2p.training.counters import Counters
from iota_p2p.training.second_visits import SecondVisits
from iota_p2p.training.stage_worker import StageWorker
from iota_p2p.training.work_share import WorkShare
from iota_p2p_protocols.chain import source_input
from iota_p2p_protocols.errors import PeerUnavailableError
from iota_p2p_protocols.loss_record import MICRONATS_PER_NAT
from iota_p2p_protocols.microbatch import MicrobatchId, live_epochs

LOSS_SMOOTHING = 0.9  # of the displayed average: about the last ten microbatches
IDLE_S = 0.05  # between looks whether there is something to start

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Done:
    """What a source has completed in an epoch, for its progress.

    Attributes:
        num_microbatches: how many.
        loss_sum_micronats: sum over their tokens.
    """

    num_microbatches: int = 0
    loss_sum_micronats: int = 0


@dataclass(slots=True)
class Source:
    """Starts microbatches while we hold stage 0.

    Attributes:
        share: what we hold.
        worker: our own stage 0, where every microbatch begins.
        in_flight: how many at once.
        counters: of its microbatches.
        done: what came home, by epoch.
        paused: True to start no more for now.
        on_done: told of every microbatch that came home, and its loss in micronats.
    """

    share: WorkShare
    worker: StageWorker
    in_flight: int
    counters: Counters
    done: dict[int, Done] = field(default_factory=dict)
    paused: bool = False
    on_done: Callable[[MicrobatchId, int], None] = lambda _microbatch, _loss: None
    _visits: SecondVisits = field(init=False)
    _due: MicrobatchId | None = None

    def __post_init__(self) -> None:
        rules = self.share.spec.validation
        every = rules.pair_every if rules is not None else 0
        self._visits = SecondVisits(self.share.identity, self.share.terms.run_id, every)

    async def run(self) -> None:
        """Keep `in_flight` microbatches going until cancelled."""
        limiter = trio.Semaphore(self.in_flight)
        async with trio.open_nursery() as nursery:
            while True:
                await limiter.acquire()
                while not self._may_start:  # noqa: ASYNC110 - four unlike things may change the answer
                    await trio.sleep(IDLE_S)
                nursery.start_soon(self._drive, self._next(), limiter)

    @property
    def _may_start(self) -> bool:
        if self.paused or not self.worker.takes(0):
            return False
        return self.counters.peek(self.share.epoch) < self.share.data.microbatches_per_source

    def _next(self) -> MicrobatchId:
        epoch, due = self.share.epoch, self._due
        if due is not None and due.epoch == epoch:
            self._due = None
            return due
        started = MicrobatchId(epoch=epoch, source=self.share.identity.peer_id, counter=self.counters.take(epoch))
        self._due = self._visits.due_after(started)
        return started

    async def _drive(self, microbatch: MicrobatchId, limiter: trio.Semaphore) -> None:
        counts = self.share.counts
        counts.sent += 1
        try:
            work = source_input(microbatch, self.share.terms.run_id)
            worked = await self.worker.work_on(work, None)
            self._count(microbatch, worked.loss_micronats)
        except (PeerUnavailableError, DivergedError) as error:
            counts.lost += 1
            _log.warning("microbatch lost", extra={"counter": microbatch.counter, "reason": str(error)})
        finally:
            limiter.release()

    def _count(self, microbatch: MicrobatchId, loss: int) -> None:
        counts, tokens = self.share.counts, self.share.tokens_per_microbatch
        nats = loss / MICRONATS_PER_NAT
        counts.completed += 1
        counts.tokens += tokens
        last = nats if counts.loss_nats is None else counts.loss_nats
        counts.loss_nats = LOSS_SMOOTHING * last + (1 - LOSS_SMOOTHING) * nats
        self.on_done(microbatch, loss)
        done = self.done.setdefault(microbatch.epoch, Done())
        done.num_microbatches += 1
        done.loss_sum_micronats += loss * tokens
        for closed in [of for of in self.done if of not in live_epochs(self.share.epoch)]:
            del self.done[closed]
