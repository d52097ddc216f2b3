"""What we did on each held stage in the last epochs: the log, and what the stage was at its cuts, until it is replayed.

Checkpoints are kept in memory, since a replay comes within an epoch or never. Where a stage begins an epoch as it ended
the one before, both share their bytes.
"""

from dataclasses import dataclass, field
from math import floor

from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.stage_state import state_bounds
from iota_p2p.validation.segment_states import SegmentsKept, SegmentStates
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.message import seal_message
from iota_p2p_protocols.scoring.segments import most_segments
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment

# While an epoch is replayed, the next one is under way.
KEPT_EPOCHS = 2
# What an epoch's states on one stage may come to. It decides into how many segments logs are cut, so it is the same for
# everybody: logs of 5 million weights have 16, those of 45 million weights one.
STATES_BYTES = 2 << 30
# Beyond that the oldest go, and whoever wants to replay those is told that they are gone.
MAX_KEPT_BYTES = 4 << 30
LIFETIME_S = 86_400


@dataclass(frozen=True, slots=True)
class KeptWork:
    """An epoch's work on one stage.

    Attributes:
        epoch, stage: which.
        theta_digest: of the weights it began with.
        segments: the log, closed, and the states at its cuts.
    """

    epoch: int
    stage: int
    theta_digest: Digest
    segments: SegmentsKept

    @property
    def num_bytes(self) -> int:
        """Return what it takes at most."""
        return sum(map(len, self.segments.checkpoints)) + sum(map(len, self.segments.stashes))


@dataclass(slots=True)
class WorkKeeper:
    """Keeps work by epoch and stage, and commits to it.

    Attributes:
        identity: who commits.
        run_id: our run.
        limit_bytes: of all checkpoints together.
    """

    identity: Identity
    run_id: bytes
    limit_bytes: int = MAX_KEPT_BYTES
    _growing: dict[int, tuple[HeldStage, SegmentStates]] = field(default_factory=dict)  # by stage
    _kept: dict[tuple[int, int], KeptWork] = field(default_factory=dict)
    _committed: set[tuple[int, int]] = field(default_factory=set)

    def begun(self, held: HeldStage) -> None:
        """Take the checkpoint that a stage's epoch begins with; on the lane.

        An epoch that begins anew, from weights that others had, is another log; the one before led nowhere.
        """
        if (held.epoch, held.index) not in self._committed:
            self._kept.pop((held.epoch, held.index), None)
        start = held.compute.checkpoint()
        ends = (one.segments.checkpoints[-1] for one in self._kept.values())
        theta_bytes = state_bounds(held.spec, held.index).weights_bytes
        most = most_segments(theta_bytes, STATES_BYTES)
        before = next((end for end in ends if end == start), start)
        self._growing[held.index] = (held, SegmentStates(held.epoch, before, most, theta_bytes))

    def stepped(self, held: HeldStage) -> None:
        """Take what a stage has become by an inner step, if its log may be cut there; on the lane."""
        _, states = self._growing.get(held.index, (None, None))
        if states is not None and states.epoch == held.epoch:
            states.stepped(held)

    def closed(self, held: HeldStage) -> None:
        """Take the log that is complete and the checkpoint it leads to; on the lane. No work is nothing to keep."""
        _, states = self._growing.pop(held.index, (None, None))
        if states is not None and states.epoch == held.epoch and len(held.log):
            self._keep(held.index, states, states.states(held.log, held.compute.checkpoint()))

    def cut(self, epoch: int) -> None:
        """Take the logs of an epoch that are still open, in merges that take long, as far as they go; on the lane."""
        for stage, (held, states) in sorted(self._growing.items()):
            if states.epoch == epoch == held.epoch and len(held.log):
                self._keep(stage, states, states.so_far(held.log))

    def commit(self, epoch: int, now_s: float) -> list[bytes]:
        """Fix what was closed of an epoch and is not committed to yet; return a signed commitment for each stage.

        A stage whose merge took long comes with a later call.
        """
        ready = [one for key, one in sorted(self._kept.items()) if one.epoch == epoch and key not in self._committed]
        self._committed.update((one.epoch, one.stage) for one in ready)
        return [self._commit(one, now_s) for one in ready]

    def _keep(self, stage: int, states: SegmentStates, segments: SegmentsKept) -> None:
        """Keep what is not committed to yet."""
        if (states.epoch, stage) not in self._committed:
            theta_digest = digest(states.start[-states.theta_bytes :])
            self._kept[states.epoch, stage] = KeptWork(states.epoch, stage, theta_digest, segments)
            self._forget(states.epoch)

    def kept(self, epoch: int, stage: int) -> KeptWork | None:
        """Return the work of a stage and epoch, or None if there is none any more."""
        return self._kept.get((epoch, stage))

    def _commit(self, one: KeptWork, now_s: float) -> bytes:
        message = WorkCommitment(
            run_id=self.run_id,
            sequence=floor(now_s * 1000),
            issued_s=floor(now_s),
            expires_s=floor(now_s) + LIFETIME_S,
            epoch=one.epoch,
            stage=one.stage,
            log_root=one.segments.log.root,
            num_entries=len(one.segments.log),
            theta_digest=one.theta_digest,
            checkpoints=tuple(map(digest, one.segments.checkpoints)),
            stashes=tuple(map(digest, one.segments.stashes)),
        )
        return seal_message(message, self.identity)

    def _forget(self, newest: int) -> None:
        self._kept = {key: one for key, one in self._kept.items() if one.epoch > newest - KEPT_EPOCHS}
        while len(self._kept) > 1 and sum(one.num_bytes for one in self._kept.values()) > self.limit_bytes:
            del self._kept[min(self._kept)]
        self._committed = {key for key in self._committed if key[0] > newest - KEPT_EPOCHS}
