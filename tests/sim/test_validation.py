"""Validation on the simulated network: real losses in, certified scores out, and an archive that holds."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.audit.archive import read_archive
from iota_p2p.audit.dossier import open_dossier
from iota_p2p.audit.recomputation import recompute
from iota_p2p.audit.verification import verify
from iota_p2p.ledger.ledger import FILE_NAME, open_ledger
from iota_p2p.run.spec import ValidationSpec
from iota_p2p.validation.validation import Validation, ValidationConfig, open_validation
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.replay_draw import Pair
from iota_p2p_protocols.scoring.result import CertifiedResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_testnet.training_swarm import Member, TrainingSwarm, open_training_swarm, small_run

PAIR_EVERY = 2
RULES = ScoringRules(costs_ppm=(500_000, 500_000), pot=1000, pair_every=PAIR_EVERY)
STEP_S = 0.5
NUM_EPOCHS = 6  # of which scores are compared
ALIKE = 1.15  # honest peers' scores for equal work


@asynccontextmanager
async def validated_swarm(
    folder: Path, num_peers: int = 4, target: int = 150
) -> AsyncIterator[tuple[TrainingSwarm, dict[PeerId, Validation]]]:
    """Run a swarm of two stages whose peers all validate."""
    validation = ValidationSpec(pair_every=PAIR_EVERY)
    spec = small_run(folder, target_microbatches=target).model_copy(update={"validation": validation})
    async with open_training_swarm(0, spec, folder) as swarm, AsyncExitStack() as stack:
        validations = {}
        for number in range(num_peers):
            member = await swarm.start(number, pinned=(number % 2,))
            validations[member.peer.identity.peer_id] = await stack.enter_async_context(
                open_validation(member.peer, member.trainer.share, config_of(folder, member, stack))
            )
        yield swarm, validations


def config_of(folder: Path, member: Member, stack: AsyncExitStack) -> ValidationConfig:
    home = folder / f"peer-{member.number}"
    home.mkdir(parents=True, exist_ok=True)
    ledger = stack.enter_context(open_ledger(home / FILE_NAME))
    return ValidationConfig(rules=RULES, ledger=ledger, step_s=STEP_S, replay_ppm=500_000, software="iota-p2p test")


@pytest.mark.slow
async def test_validators__certify_scores_that_an_audit_bears_out(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with validated_swarm(tmp_path) as (swarm, validations):
        results: dict[PeerId, list[CertifiedResult]] = {peer_id: [] for peer_id in validations}
        replays: list[tuple[Pair, str]] = []
        for peer_id, validation in validations.items():
            validation.validator.on_result = results[peer_id].append
            validation.validator.on_replay = lambda _, pair, verdict: replays.append((pair, verdict.replay))
        await swarm.until(lambda: min(map(len, results.values())) >= 3, timeout_s=200)
        agreed = {result.result.payload_bytes for found in results.values() for result in found[:3]}
        assert len(agreed) == 3
        for result in next(iter(results.values())):
            assert len(result.validators) >= 3
            assert sum(share for _, _, share in result.payload.payouts) == RULES.pot
            assert {peer_id for peer_id, _, _ in result.payload.payouts} == set(validations)
        assert {verdict for _, verdict in replays} <= {"passed", "not-drawn"}
        assert any(verdict == "passed" for _, verdict in replays)
        await trio.sleep(2)
    dossier = open_dossier(read_archive([tmp_path]))
    assert verify(dossier) == []
    outcome = recompute(dossier)
    assert outcome.failures == []
    assert outcome.num_records >= 9
    assert {len(heads) >= 2 for heads in dossier.heads.values()} == {True}
    assert max(len(head.signers) for heads in dossier.heads.values() for head in heads) >= 3


@pytest.mark.slow
async def test_honest_peers__are_scored_alike_for_equal_work(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Scores of an epoch per unit of work: the best of six peers is within 15 % of the worst, six epochs in a row."""
    async with validated_swarm(tmp_path, num_peers=6, target=75) as (swarm, validations):
        records: dict[int, list[ScoreRecord]] = {}
        for validation in validations.values():
            validation.validator.on_record = lambda record: records.setdefault(record.epoch, []).append(record)
        await swarm.until(lambda: all(len(records.get(epoch, ())) == 6 for epoch in range(NUM_EPOCHS)), timeout_s=400)
    for epoch in range(NUM_EPOCHS):
        rows = [row for record in records[epoch] for row in record.rows if row.findings.work]
        assert {row.peer_id for row in rows} == set(validations)
        quality = {row.peer_id: row.score.score / row.findings.work for row in rows}
        assert min(quality.values()) >= max(quality.values()) / ALIKE, (epoch, quality)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 4])
async def test_validator__that_comes_later_or_again_takes_part_in_results(
    number: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One that was killed, or one more: whoever was not there from the first epoch learns the seeds, and is elected."""
    async with validated_swarm(tmp_path) as (swarm, _), AsyncExitStack() as stack:
        share = next(iter(swarm.members.values())).trainer.share
        await swarm.until(lambda: share.epoch == 2)
        for victim in [member for member in swarm.members.values() if member.number == number]:
            swarm.crash(victim)
        late = await swarm.start(number, pinned=(1,), epoch=share.epoch)
        config = config_of(tmp_path, late, stack)
        validation = await stack.enter_async_context(open_validation(late.peer, late.trainer.share, config))
        records: list[ScoreRecord] = []
        results: list[CertifiedResult] = []
        validation.validator.on_record, validation.validator.on_result = records.append, results.append
        me = late.peer.identity.peer_id
        await swarm.until(lambda: any(me in result.validators for result in results), timeout_s=120)
        assert results[0].payload.epoch <= 4  # of epochs that it saw end
        assert records
