"""`StageMerge`: takes one stage from each epoch to the next, with its replicas.

    frozen -> committed -> roster certified -> reduced -> installed

A stage that nobody else holds goes on with its own weights at once. One that was left out, diverged or has nothing to
contribute takes the weights that the others agreed on. Whatever happens, the stage is in the new epoch after a bounded
time, and usually after a few round trips.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import trio

from iota_p2p.merge.base_fetch import BaseFetch
from iota_p2p.merge.catching_up import CATCH_UP_S, CatchingUp
from iota_p2p.merge.certifying import Certifying
from iota_p2p.merge.columns import ROWS_S, Columns
from iota_p2p.merge.encounter import Encounter, Outcome
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.lone_step import FIRST, LoneStep
from iota_p2p.merge.meeting_point import MeetingPoint
from iota_p2p.merge.memory import KnownBase, MergeMemory, vector_digest
from iota_p2p.merge.outer_step import OuterState, Vector, outer_step
from iota_p2p.merge.own_contribution import Origin, sign_contribution
from iota_p2p.merge.record import How, MergeRecord, record_of
from iota_p2p.merge.round import Committed, Means, commit
from iota_p2p.merge.signed_epochs import SignedEpochs
from iota_p2p.network.rendezvous import Rendezvous
from iota_p2p.run.data import epoch_seed
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.held_stage import EpochWork, HeldStage
from iota_p2p.training.lane import Priority
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.merge_certificate import Merge, check_merge
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class StageMerge:
    """One held stage's merges.

    Attributes:
        means: how others are called.
        rendezvous: how replicas find each other that the view does not have.
        share: what we hold and who holds the rest.
        held: the stage.
        spec: how the run merges.
        memory: what others may ask us for.
        signed: which merges we may have signed something of.
        nursery: in which letters are brought.
        announce: gossips our contribution, or a merge's certificate.
        on_merged: told of every epoch that begins.
        on_fault: told proofs of what members did wrong that came after that.
        letters: of the epoch that the stage is in.
        previous: of the one before.
        point: where the replicas find each other.
    """

    means: Means
    rendezvous: Rendezvous
    share: WorkShare
    held: HeldStage
    spec: MergeSpec
    memory: MergeMemory
    signed: SignedEpochs
    nursery: trio.Nursery
    announce: Callable[[Literal["contribution", "merge"], bytes], None]
    on_merged: Callable[[MergeRecord], None]
    on_fault: Callable[[bytes], None]
    letters: Letters = field(init=False)
    previous: Letters = field(init=False)
    point: MeetingPoint = field(init=False)
    _fetch: BaseFetch = field(init=False)
    _turned: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        """Be ready for letters."""
        index, me = self.held.index, self.means.identity.peer_id
        self.letters = Letters(self.means, index, self.held.epoch, self.nursery)
        self.previous = self.letters
        num_values = sum(parameter.numel() for parameter in self.held.compute.stage.parameters())
        self._fetch = BaseFetch(self.means, index, num_values, bool(self.spec.momentum))
        self.point = MeetingPoint(
            self.rendezvous, me, index, lambda: self.share.routes.replicas(index).keys(), self._fetch.ask
        )

    def _open_letters(self) -> None:
        self.previous = self.letters
        self.letters = Letters(self.means, self.held.index, self.held.epoch, self.nursery)
        self.point.attend(self.held.epoch, self.nursery)

    @property
    def _is_held(self) -> bool:
        return self.share.stages.get(self.held.index) is self.held

    def turn(self) -> None:
        """Tell that the run has gone on to another epoch."""
        self._turned.set()

    async def run(self) -> None:
        """Keep the stage in the run's epoch for as long as it is held."""
        self.point.attend(self.held.epoch, self.nursery)
        if self.held.base is not None:
            await self._known()
        while self._is_held:
            self._turned = trio.Event()
            if self.held.base is None:
                self.on_merged(await self._catch_up())
                await self._known()
                self._open_letters()
            elif self.held.epoch < self.share.epoch:
                await self._go_on()
            else:
                await self._turned.wait()
        self.point.leave()

    async def _known(self) -> None:
        base = self.held.base
        assert base is not None  # noqa: S101 - whoever goes on has one
        known = await self.means.beside(partial(KnownBase.of, base, self.held.epoch))
        self.memory.bases[self.held.index] = known
        self.memory.forget_before(self.held.index, self.held.epoch - 1)

    async def _go_on(self) -> None:
        """Take the stage to the next epoch."""
        began_s = trio.current_time()
        record = await self._merge(began_s) if self.point.others() else await self._alone(began_s)
        if record is None:
            record = await self._catch_up()
        await self._known()
        self._open_letters()
        self.on_merged(record)

    async def _alone(self, began_s: float) -> MergeRecord:
        step = LoneStep(self.means, self.share, self.held, self.spec, self.nursery, self.announce)
        return self._record("alone", await step.run(), began_s)

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
        held, base = self.held, self.held.base  # which another task may forget meanwhile
        assert base is not None  # noqa: S101 - `run` saw to it
        async with held.gate.shut():
            work = await self.share.lane.run(Priority.BACKWARD, held.work, FIRST)
            gradient_W = np.subtract(base.theta_W, work.theta_W)
            if not work.samples or not bool(np.isfinite(gradient_W).all()):
                return None
            if not self.signed.begin(held.index, held.epoch):
                return None
            self.nursery.start_soon(self.point.look, held.epoch)
            seed, most = epoch_seed(self.means.run_id, held.epoch), self.spec.most_in_a_roster or MAX_MEMBERS
            self.point.take_seat(seed, most)
            committed = await self.means.beside(partial(self._commit, gradient_W))
            outcome = await self._encounter(work, committed).run()
            if outcome is not None and self.point.num_rows > 1:
                outcome = await self._meet_rows(outcome)
            if outcome is None:
                return None
            step = partial(outer_step, base, outcome.reduction.gradient_W, self.spec, held.epoch)
            state = await self.means.beside(step)
            held.residual_W = committed.residual_W
            await self.share.lane.run(Priority.BACKWARD, partial(held.install, state, held.epoch + 1), FIRST)
        self.nursery.start_soon(self._certify, outcome, state, self.letters)
        self.point.met(outcome.members)
        bytes_up = self.memory.given(held.index, outcome.round_.epoch)
        return record_of(outcome, vector_digest(state.theta_W), trio.current_time() - began_s, bytes_up)

    def _encounter(self, work: EpochWork, committed: Committed) -> Encounter:
        origin = Origin.of(self.held, self.spec.codec, self.point.seat.row, self.point.num_rows)
        contribution = sign_contribution(self.means, origin, work, committed)
        self.memory.keep_committed(self.held.index, self.held.epoch, contribution.digest, committed)
        self.announce("contribution", contribution.envelope_bytes)
        return Encounter(
            means=self.means,
            letters=self.letters,
            memory=self.memory,
            own=contribution,
            committed=committed,
            seed=epoch_seed(self.means.run_id, self.held.epoch),
            into_W=work.theta_W,  # which nothing else needs any more
            expected=self.point.expected,
            vouched=self.point.vouched,
        )

    async def _meet_rows(self, outcome: Outcome) -> Outcome | None:
        """Go on from our row's mean to that of all rows."""
        columns = Columns(
            means=self.means,
            letters=self.letters,
            memory=self.memory,
            seat=self.point.seat,
            outcome=outcome,
            accuse=self.on_fault,
        )
        combined = await columns.run()
        self.nursery.start_soon(columns.linger)
        return combined

    async def _certify(self, outcome: Outcome, state: OuterState, letters: Letters) -> None:
        """See what two thirds say came of a merge, while training goes on; take that if it is not what we have."""
        own = outcome.merge_to(state)
        certifying = self._certifying(outcome, letters)
        self._follow(await certifying.run(own), own, outcome)
        letters.end()
        await certifying.linger()

    def _certifying(self, outcome: Outcome, letters: Letters) -> Certifying[Merge]:
        return Certifying(self.means, letters, outcome.certificate, self.on_fault, Merge, check_merge)

    def _follow(self, certificate: Verified[Merge] | None, own: Merge, outcome: Outcome) -> None:
        """Note the certificate of what we have, or see to it that we fetch what the others have."""
        if certificate is None or self.held.epoch != outcome.round_.epoch + 1:
            return
        if certificate.payload.theta_digest == own.theta_digest:
            self.held.certificate = certificate.digest
            if outcome.certificate.roster.payload.convener == self.means.identity.peer_id:
                self.announce("merge", certificate.envelope_bytes)
            return
        _log.warning("merged otherwise than the others", extra={"stage": self.held.index, "epoch": own.epoch})
        self.held.forget_base()
        self.turn()

    def _commit(self, gradient_W: Vector) -> Committed:
        return commit(gradient_W, CODECS[self.spec.codec], self.held.residual_W)

    async def _catch_up(self) -> MergeRecord:
        """Take what the others agreed on; our own work of the epoch is lost. Go on alone if nobody has anything."""
        began_s = trio.current_time()
        after = -1 if self.held.base is None else self.held.epoch
        patience_s = CATCH_UP_S + ROWS_S * (self.point.num_rows > 1)  # others may wait for our row
        found = await CatchingUp(self._fetch, self.point.vouched, lambda: self.share.epoch, patience_s).run(after)
        if found is None:
            return await self._alone(began_s)
        epoch, state = found
        await self.share.lane.run(Priority.BACKWARD, partial(self.held.install, state, epoch), FIRST)
        return self._record("fetched", state, began_s)
