"""`Encounter`: one stage's replicas at the end of an epoch, from our contribution to the mean of all."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import trio

from iota_p2p.merge.collecting import Collecting
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.meeting import MeetingTask
from iota_p2p.merge.memory import MergeMemory, vector_digest
from iota_p2p.merge.outer_step import OuterState, Vector
from iota_p2p.merge.reduction import Reduction, reduce_round
from iota_p2p.merge.round import Committed, Contributor, Means, Round
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution, check_contribution
from iota_p2p_protocols.butterfly.merge_certificate import NO_VELOCITY, Merge, merge_of
from iota_p2p_protocols.butterfly.roster import RosterCertificate
from iota_p2p_protocols.butterfly.row_mean import RowMean

# The machine gives up by itself after some rounds of conveners; in a large stage of silent ones that is too long.
MEETING_S = 20.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an encounter came to.

    Attributes:
        certificate: of its roster.
        round_: the merge.
        reduction: its mean.
        faults: proofs of what members did wrong.
        rows: the row means that were combined to it (`columns`); none if one roster holds everybody.
    """

    certificate: RosterCertificate
    round_: Round
    reduction: Reduction
    faults: tuple[bytes, ...]
    rows: tuple[Verified[RowMean], ...] = ()

    @property
    def members(self) -> tuple[PeerId, ...]:
        """Whose work is in it: the roster's members, then those of the other rows."""
        own = self.round_.members
        return (*own, *(PeerId(one) for row in self.rows for one in row.payload.peers if one not in own))

    @property
    def samples(self) -> int:
        """How many microbatches count."""
        return sum(row.payload.samples for row in self.rows) or sum(self.round_.samples)

    def merge_to(self, state: OuterState) -> Merge:
        """Return what we sign of it: that it came to a state."""
        velocity = NO_VELOCITY if state.velocity_W is None else vector_digest(state.velocity_W)
        return merge_of(
            self.certificate,
            self.round_.shard_map,
            self.reduction.claims,
            theta_digest=vector_digest(state.theta_W),
            velocity_digest=velocity,
            rows=[row.digest for row in self.rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encounter:
    """One merge with others.

    Attributes:
        means: how others are called.
        letters: how members talk.
        memory: what they may ask us for; our blocks are in it.
        own: our contribution.
        committed: its blocks.
        seed: the epoch's.
        into_W: memory for the mean.
        expected: returns the replicas that are there now, ourselves among them.
        vouched: returns those of the others who are believed when they say that they are through; nobody, unless said.
        meet, collect: how we agree and reduce; bad peers of tests do it otherwise.
    """

    means: Means
    letters: Letters
    memory: MergeMemory
    own: Verified[Contribution]
    committed: Committed
    seed: bytes
    into_W: Vector
    expected: Callable[[], Collection[PeerId]]
    vouched: Callable[[], Collection[PeerId]] = tuple
    meet: type[MeetingTask] = MeetingTask
    collect: type[Collecting] = Collecting

    async def run(self) -> Outcome | None:
        """Come to a roster and to its mean; None if we are left out or some result cannot be had."""
        payload = self.own.payload
        meeting = self.meet(
            means=self.means,
            letters=self.letters,
            own=self.own,
            seed=self.seed,
            expected=self.expected,
            vouched=self.vouched,
            check=partial(_check, codec=payload.codec, num_values=payload.num_values),
        )
        outcome: Outcome | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meeting.run)
            with trio.move_on_after(MEETING_S):
                while meeting.certificate is None and not meeting.left_out:
                    await meeting.changed.wait()
            while meeting.certificate is not None and outcome is None and not meeting.left_out:
                outcome = await self._reduce(meeting, meeting.certificate)
            nursery.cancel_scope.cancel()
        return outcome if outcome is not None and outcome.reduction.here else None

    async def _reduce(self, meeting: MeetingTask, certificate: RosterCertificate) -> Outcome | None:
        """Reduce with the members of a certificate; None if another one replaces it meanwhile."""
        round_ = self._round(certificate)
        reductions: list[Reduction] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while meeting.certificate is certificate and not meeting.left_out:
                    await meeting.changed.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            reductions.append(
                await reduce_round(
                    self.means, round_, self.letters, self.memory, into_W=self.into_W, collect=self.collect
                )
            )
            nursery.cancel_scope.cancel()
        if not reductions:
            return None
        return Outcome(certificate, round_, reductions[0], (*meeting.faults, *reductions[0].faults))

    def _round(self, certificate: RosterCertificate) -> Round:
        contributors = tuple(
            Contributor(one.signer, one.digest, one.payload.root, one.payload.samples)
            for one in certificate.contributions
        )
        payload, me = self.own.payload, certificate.members.index(self.means.identity.peer_id)
        codec, num_values = self.committed.codec, self.committed.num_values
        return Round(
            certificate.digest,
            payload.epoch,
            payload.stage,
            codec,
            num_values,
            contributors,
            me,
            self.committed,
            certificate,
        )


def _check(contribution: Verified[Contribution], codec: str, num_values: int) -> None:
    check_contribution(contribution, codec=codec, num_values=num_values)
