"""A swarm in which one peer's work of an epoch is replayed by another: for tests, and for bench/replay.py."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from iota_p2p.peer import Peer
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.lane import Priority, SimulatedLane
from iota_p2p.training.trainer import Trainer
from iota_p2p.validation.evidence_keeper import EvidenceKeeper
from iota_p2p.validation.replay_exchange import serve_replay
from iota_p2p.validation.replayer import Replayer
from iota_p2p.validation.work_keeper import WorkKeeper
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.evidence import (
    EvidenceCommitment,
    EvidenceTerms,
    JoinedEvidence,
    join_evidence,
    open_evidence,
)
from iota_p2p_protocols.scoring.replay_verdict import Verdict
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_testnet.training_swarm import Twist, open_training_swarm, small_run
from tests.scoring.scenes import NOW_S
from tests.sim.training_swarms import SLOW

EPOCH = 1
T = TypeVar("T")


class CpuLane(SimulatedLane):
    """A simulated lane that notes what its work costs in truth."""

    def __init__(self, cost_s: Callable[[Priority], float]) -> None:
        super().__init__(cost_s)
        self.spent_s = dict.fromkeys(Priority, 0.0)  # of processor

    @property
    def worked_s(self) -> float:
        return self.spent_s[Priority.FORWARD] + self.spent_s[Priority.BACKWARD]

    async def run(self, priority: Priority, work: Callable[[], T], order: tuple[int, ...] = ()) -> T:
        def timed() -> T:
            start_s = time.process_time()
            try:
                return work()
            finally:
                self.spent_s[priority] += time.process_time() - start_s

        return await super().run(priority, timed, order)


class Witnesses:
    """Keeps what every peer of a swarm would show of an epoch."""

    def __init__(self, run_id: bytes) -> None:
        self.run_id = run_id
        self.work: dict[PeerId, WorkKeeper] = {}
        self.evidence: dict[PeerId, EvidenceKeeper] = {}
        self.spent_s: dict[tuple[PeerId, int], float] = {}  # by peer and epoch

    def of(self, twist: Twist | None = None) -> Twist:
        async def keep(peer: Peer, trainer: Trainer) -> None:
            work = self.work[peer.identity.peer_id] = WorkKeeper(peer.identity, self.run_id)
            evidence = self.evidence[peer.identity.peer_id] = EvidenceKeeper(peer.identity, self.run_id)
            share, lane = trainer.share, CpuLane(SLOW.of)
            share.lane = lane

            def begun(held: HeldStage) -> None:
                work.begun(held)
                self.spent_s[peer.identity.peer_id, held.epoch] = -lane.worked_s

            def closed(held: HeldStage) -> None:
                self.spent_s[peer.identity.peer_id, held.epoch] += lane.worked_s
                work.closed(held)

            share.witness, share.work_begun, share.work_closed = evidence.take, begun, closed
            share.work_stepped = work.stepped
            await serve_replay(peer.network.streams, work, share.payloads, share.returns)
            if twist is not None:
                await twist(peer, trainer)

        return keep

    def joined(self) -> JoinedEvidence:
        """Return what all of them show of EPOCH, joined."""
        shown = []
        for keeper in self.evidence.values():
            for envelope in keeper.commit(EPOCH, NOW_S):
                commitment = open_signed(envelope, EvidenceCommitment)
                envelopes = keeper.shown(commitment.digest) or ()
                terms = EvidenceTerms(run_id=self.run_id, num_stages=3, epoch=EPOCH)
                shown.append((commitment, open_evidence(commitment, envelopes, terms)))
        return join_evidence(shown, self.run_id)


@dataclass(frozen=True)
class Outcome:
    """What looking at one peer's epoch came to.

    Attributes:
        read: the verdict of its log alone.
        redone: of each segment.
        work_s, replay_s: processor seconds of the work, and of replaying all segments.
    """

    read: Verdict
    redone: tuple[Verdict, ...]
    work_s: float
    replay_s: float

    @property
    def verdict(self) -> Verdict:
        """The first that is against the peer, or the last."""
        found = (self.read, *self.redone)
        return next((one for one in found if one.replay in ("failed", "no-evidence")), found[-1])


async def replayed(
    folder: Path, stage: int, twist: Twist | None = None, merge: MergeSpec | None = None, per_step: int = 1
) -> Outcome:
    """Let two replicas of each of three stages train, one of them twisted, and another peer replay all of that one."""
    spec = small_run(folder, num_stages=3, target_microbatches=80, microbatches_per_step=per_step, merge=merge)
    witnesses = Witnesses(spec.run_id)
    async with open_training_swarm(1, spec, folder) as swarm:
        suspect = await swarm.start(0, pinned=(stage,), costs=SLOW, twist=witnesses.of(twist))
        for number in range(1, 6):
            pinned = ((stage + number) % 3,)
            replayer = await swarm.start(number, pinned=pinned, costs=SLOW, twist=witnesses.of())
        await swarm.until(lambda: all(m.trainer.share.epoch > EPOCH for m in swarm.members.values()))
        await trio.sleep(1)  # merges and last words
        evidence = witnesses.joined()
        [envelope] = witnesses.work[suspect.peer.identity.peer_id].commit(EPOCH, NOW_S)
        for member in swarm.members.values():
            member.trainer.source.paused = True  # the replay's turns are all that is left to see
        replaying = Replayer(replayer.peer.network.streams, replayer.trainer.share)
        lane = replayer.trainer.share.lane
        assert isinstance(lane, CpuLane)
        before_s = lane.spent_s[Priority.BACKGROUND]
        shown = await replaying.read(open_signed(envelope, WorkCommitment), evidence)
        work_s = witnesses.spent_s[suspect.peer.identity.peer_id, EPOCH]
        if isinstance(shown, Verdict):
            return Outcome(shown, (), work_s, 0.0)
        redone = [await replaying.redo(shown, segment, lambda: True) for segment in shown.segments]
        replay_s = lane.spent_s[Priority.BACKGROUND] - before_s
        return Outcome(Verdict("not-drawn"), tuple(redone), work_s, replay_s)
