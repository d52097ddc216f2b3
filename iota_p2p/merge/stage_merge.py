"""`StageMerge`: takes one stage from each epoch to the next, with its replicas.

    frozen -> committed -> roster certified -> reduced -> installed

A stage that nobody else holds goes on with its own weights at once. One that was left out, diverged or has nothing to
contribute takes the weights that the others agreed on. Whatever happens, the stage is in the new epoch after a bounded
time, and usually after a few round trips.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from math import floor

import numpy as np
import trio

from iota_p2p.merge.base_fetch import BaseFetch, best_base
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.meeting import MeetingTask
from iota_p2p.merge.memory import KnownBase, MergeMemory, vector_digest
from iota_p2p.merge.outer_step import OuterState, Vector, outer_step
from iota_p2p.merge.record import How, MergeRecord, record_of
from iota_p2p.merge.reduction import Reduction, reduce_round
from iota_p2p.merge.round import Committed, Contributor, Means, Round, commit
from iota_p2p.run.data import epoch_seed
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.held_stage import EpochWork, HeldStage
from iota_p2p.training.lane import Priority
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.contribution import Contribution, check_contribution
from iota_p2p_protocols.butterfly.roster import RosterCertificate
from iota_p2p_protocols.message import open_signed, seal_message

# For whoever was left out: the others need about so long. Whoever waits in vain goes on alone, and is brought back by
# its next contribution's base.
CATCH_UP_S = 5.0
ASK_EVERY_S = 0.2
# The machine gives up by itself after some rounds of conveners; in a large stage of silent ones that is too long.
MEETING_S = 20.0
LIFETIME_S = 3600

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class StageMerge:
    """One held stage's merges.

    Attributes:
        means: how others are called.
        share: what we hold and who holds the rest.
        held: the stage.
        spec: how the run merges.
        memory: what others may ask us for.
        nursery: in which letters are brought.
        announce: publishes our contribution.
        on_merged: told of every epoch that begins.
        letters: of the epoch that the stage is in.
    """

    means: Means
    share: WorkShare
    held: HeldStage
    spec: MergeSpec
    memory: MergeMemory
    nursery: trio.Nursery
    announce: Callable[[Verified[Contribution]], None]
    on_merged: Callable[[MergeRecord], None]
    letters: Letters = field(init=False)
    _turned: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        """Be ready for letters."""
        self._open_letters()

    def _open_letters(self) -> None:
        self.letters = Letters(self.means, self.held.index, self.held.epoch, self.nursery)

    @property
    def _is_held(self) -> bool:
        return self.share.stages.get(self.held.index) is self.held

    def others(self) -> list[PeerId]:
        """Return who else serves the stage."""
        return sorted(set(self.share.routes.replicas(self.held.index)) - {self.means.identity.peer_id})

    def turn(self) -> None:
        """Tell that the run has gone on to another epoch."""
        self._turned.set()

    async def run(self) -> None:
        """Keep the stage in the run's epoch for as long as it is held."""
        if self.held.base is None:
            await self._catch_up()
            self._open_letters()
        await self._known()
        while self._is_held:
            self._turned = trio.Event()
            if self.held.epoch < self.share.epoch:
                await self._go_on()
            else:
                await self._turned.wait()

    async def _known(self) -> None:
        base = self.held.base
        assert base is not None  # noqa: S101 - whoever goes on has one
        known = await self.means.beside(partial(KnownBase.of, base, self.held.epoch))
        self.memory.bases[self.held.index] = known
        self.memory.forget_before(self.held.index, self.held.epoch - 1)

    async def _go_on(self) -> None:
        """Take the stage to the next epoch."""
        began_s = trio.current_time()
        record = await self._merge(began_s) if self.others() else await self._alone(began_s)
        if record is None:
            record = await self._catch_up()
        await self._known()
        self.letters.end()
        self._open_letters()
        self.on_merged(record)

    async def _alone(self, began_s: float) -> MergeRecord:
        """Go on with our own weights."""
        state = await self.share.lane.run(Priority.BACKWARD, self._go_on_alone)
        return self._record("alone", state, began_s)

    def _go_on_alone(self) -> OuterState:
        held, work = self.held, self.held.work()
        state = OuterState(work.theta_W)
        if held.base is not None and self.spec.momentum:
            state = outer_step(held.base, np.subtract(held.base.theta_W, work.theta_W), self.spec, held.epoch)
        held.install(state, max(self.share.epoch, held.epoch))
        return state

    def _record(self, how: How, state: OuterState, began_s: float) -> MergeRecord:
        return MergeRecord(
            epoch=self.held.epoch,
            stage=self.held.index,
            how=how,
            theta_digest=vector_digest(state.theta_W),
            seconds=trio.current_time() - began_s,
        )

    async def _merge(self, began_s: float) -> MergeRecord | None:
        """Merge with the others; None if that came to nothing."""
        held = self.held
        assert held.base is not None  # noqa: S101 - `run` saw to it
        async with held.gate.shut():
            work = await self.share.lane.run(Priority.BACKWARD, held.work)
            gradient_W = np.subtract(held.base.theta_W, work.theta_W)
            if not work.samples or not bool(np.isfinite(gradient_W).all()):
                return None
            committed = await self.means.beside(partial(self._commit, gradient_W))
            outcome = await self._agree(work, committed)
            if outcome is None:
                return None
            round_, reduction = outcome
            step = partial(outer_step, held.base, reduction.gradient_W, self.spec, held.epoch)
            state = await self.means.beside(step)
            held.residual_W = committed.residual_W
            await self.share.lane.run(Priority.BACKWARD, partial(held.install, state, held.epoch + 1))
        bytes_up = self.memory.given(held.index, round_.epoch)
        return record_of(round_, reduction, vector_digest(state.theta_W), trio.current_time() - began_s, bytes_up)

    def _commit(self, gradient_W: Vector) -> Committed:
        return commit(gradient_W, CODECS[self.spec.codec], self.held.residual_W)

    async def _agree(self, work: EpochWork, committed: Committed) -> tuple[Round, Reduction] | None:
        """Come to a roster and to its mean; None if we are left out or something is missing."""
        contribution = self._contribution(work, committed)
        self.memory.keep_committed(self.held.index, self.held.epoch, contribution.digest, committed)
        self.announce(contribution)
        meeting = MeetingTask(
            means=self.means,
            letters=self.letters,
            own=contribution,
            seed=epoch_seed(self.means.run_id, self.held.epoch),
            expected=self._expected,
            check=partial(check_contribution, codec=self.spec.codec, num_values=len(work.theta_W)),
        )
        outcome = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meeting.run)
            with trio.move_on_after(MEETING_S):
                while meeting.certificate is None and not meeting.left_out:
                    await meeting.changed.wait()
            while meeting.certificate is not None and outcome is None and not meeting.left_out:
                outcome = await self._reduce(meeting, meeting.certificate, committed)
            nursery.cancel_scope.cancel()
        return outcome if outcome is not None and outcome[1].here else None

    async def _reduce(
        self, meeting: MeetingTask, certificate: RosterCertificate, committed: Committed
    ) -> tuple[Round, Reduction] | None:
        """Reduce with the members of a certificate; None if another one replaces it meanwhile."""
        round_ = self._round(certificate, committed)
        reductions: list[Reduction] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while meeting.certificate is certificate and not meeting.left_out:
                    await meeting.changed.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            reductions.append(await reduce_round(self.means, round_, self.letters, self.memory))
            nursery.cancel_scope.cancel()
        return (round_, reductions[0]) if reductions else None

    def _expected(self) -> Collection[PeerId]:
        return [*self.others(), self.means.identity.peer_id]

    def _contribution(self, work: EpochWork, committed: Committed) -> Verified[Contribution]:
        now_s = floor(self.means.clock())
        assert self.held.base_digest is not None  # noqa: S101 - it has a base
        contribution = Contribution(
            run_id=self.means.run_id,
            sequence=self.held.epoch,
            issued_s=now_s,
            expires_s=now_s + LIFETIME_S,
            epoch=self.held.epoch,
            stage=self.held.index,
            codec=self.spec.codec,
            num_values=len(work.theta_W),
            root=committed.commitment.root,
            samples=work.samples,
            base_digest=self.held.base_digest,
            log_root=work.log_root,
            end_digest=vector_digest(work.theta_W),
        )
        return open_signed(seal_message(contribution, self.means.identity), Contribution)

    def _round(self, certificate: RosterCertificate, committed: Committed) -> Round:
        contributors = tuple(
            Contributor(one.signer, one.digest, one.payload.root, one.payload.samples)
            for one in certificate.contributions
        )
        me = certificate.members.index(self.means.identity.peer_id)
        return Round(
            certificate.digest,
            self.held.epoch,
            self.held.index,
            committed.codec,
            committed.num_values,
            contributors,
            me,
            committed,
        )

    async def _catch_up(self) -> MergeRecord:
        """Take what the others agreed on; our own work of the epoch is lost. Go on alone if nobody has anything."""
        began_s = trio.current_time()
        num_values = sum(parameter.numel() for parameter in self.held.compute.stage.parameters())
        fetch = BaseFetch(self.means, self.held.index, num_values, bool(self.spec.momentum))
        while self.others() and trio.current_time() < began_s + CATCH_UP_S:
            best = best_base(await fetch.ask(self.others()), self.share.epoch)
            if best is not None and (best[0].epoch > self.held.epoch or self.held.base is None):
                try:
                    state = await fetch.fetch(*best)
                except PeerUnavailableError as error:
                    _log.info("not caught up", extra={"stage": self.held.index, "reason": str(error)})
                else:
                    await self.share.lane.run(Priority.BACKWARD, partial(self.held.install, state, best[0].epoch))
                    return self._record("fetched", state, began_s)
            await trio.sleep(ASK_EVERY_S)
        return await self._alone(began_s)
