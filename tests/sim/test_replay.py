"""Replays on the simulated network: honest work passes, and each way of not doing it fails by its name."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.peer import Peer
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.trainer import Trainer
from iota_p2p.validation.evidence_keeper import EvidenceKeeper
from iota_p2p.validation.replay_exchange import serve_replay
from iota_p2p.validation.replayer import Replayer
from iota_p2p.validation.work_keeper import WorkKeeper
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.evidence import EvidenceCommitment, EvidenceTerms, join_evidence, open_evidence
from iota_p2p_protocols.scoring.replay_verdict import MAX_CROSSING, Verdict
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_testnet.training_swarm import Twist, open_training_swarm, small_run
from iota_p2p_testnet.work_adversaries import work_twist
from tests.scoring.scenes import NOW_S
from tests.sim.training_swarms import SLOW

EPOCH = 1


class Witnesses:
    """Keeps what every peer of a swarm would show of an epoch."""

    def __init__(self, run_id: bytes) -> None:
        self.run_id = run_id
        self.work: dict[PeerId, WorkKeeper] = {}
        self.evidence: dict[PeerId, EvidenceKeeper] = {}

    def of(self, twist: Twist | None = None) -> Twist:
        async def keep(peer: Peer, trainer: Trainer) -> None:
            work = self.work[peer.identity.peer_id] = WorkKeeper(peer.identity, self.run_id)
            evidence = self.evidence[peer.identity.peer_id] = EvidenceKeeper(peer.identity, self.run_id)
            share = trainer.share
            share.witness, share.work_begun, share.work_closed = evidence.take, work.begun, work.closed
            await serve_replay(peer.network.streams, work, share.payloads)
            if twist is not None:
                await twist(peer, trainer)

        return keep


async def verdict_on(folder: Path, stage: int, twist: Twist | None = None, merge: MergeSpec | None = None) -> Verdict:
    """Let two replicas of each of three stages train, one of them twisted, and another peer replay that one."""
    spec = small_run(folder, num_stages=3, target_microbatches=80, merge=merge)
    witnesses = Witnesses(spec.run_id)
    async with open_training_swarm(1, spec, folder) as swarm:
        suspect = await swarm.start(0, pinned=(stage,), costs=SLOW, twist=witnesses.of(twist))
        for number in range(1, 6):
            pinned = ((stage + number) % 3,)
            replayer = await swarm.start(number, pinned=pinned, costs=SLOW, twist=witnesses.of())
        await swarm.until(lambda: all(m.trainer.share.epoch > EPOCH for m in swarm.members.values()))
        await trio.sleep(1)  # merges and last words
        shown = []
        for keeper in witnesses.evidence.values():
            for envelope in keeper.commit(EPOCH, NOW_S):
                commitment = open_signed(envelope, EvidenceCommitment)
                envelopes = keeper.shown(commitment.digest) or ()
                terms = EvidenceTerms(run_id=spec.run_id, num_stages=3, epoch=EPOCH)
                shown.append((commitment, open_evidence(commitment, envelopes, terms)))
        evidence = join_evidence(shown, spec.run_id)
        [envelope] = witnesses.work[suspect.peer.identity.peer_id].commit(EPOCH, NOW_S)
        for member in swarm.members.values():
            member.trainer.source.paused = True  # the replay's turns are all that is left to see
        work = open_signed(envelope, WorkCommitment)
        replaying = Replayer(replayer.peer.network.streams, replayer.trainer.share)
        return await replaying.run(work, evidence, lambda: True)


HONEST = [
    pytest.param(stage, merge, id=f"{stage}-{name}", marks=() if name == "alone" and stage == 1 else pytest.mark.slow)
    for stage in range(3)
    for name, merge in (("alone", None), ("merged", MergeSpec()))
]


@pytest.mark.parametrize(("stage", "merge"), HONEST)
async def test_replay__passes_honest_work(
    stage: int, merge: MergeSpec | None, tmp_path: Path, autojump_clock: MockClock
) -> None:
    verdict = await verdict_on(tmp_path, stage, merge=merge)
    assert (verdict.replay, verdict.reason) == ("passed", "none"), verdict
    assert sum(count for _, count in verdict.findings) <= MAX_CROSSING // 2


@pytest.mark.parametrize(
    ("name", "stage", "reason"),
    [
        ("lazy", 1, "no-backward"),
        pytest.param("lazy", 2, "no-backward", marks=pytest.mark.slow),
        pytest.param("random-output", 0, "output", marks=pytest.mark.slow),
        pytest.param("random-output", 1, "output", marks=pytest.mark.slow),
        pytest.param("stale", 1, "output", marks=pytest.mark.slow),
        pytest.param("lying-tail", 2, "loss", marks=pytest.mark.slow),
    ],
)
async def test_replay__fails_by_name_whoever_cheats(
    name: str, stage: int, reason: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    verdict = await verdict_on(tmp_path, stage, work_twist(name))
    assert (verdict.replay, verdict.reason) == ("failed", reason), verdict
