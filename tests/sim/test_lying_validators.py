"""One of four validators lies, equivocates or withholds: the result is the honest ones', and the liar is named."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.audit.archive import read_archive
from iota_p2p.audit.dossier import Dossier, open_dossier
from iota_p2p.audit.failure import Failure
from iota_p2p.audit.recomputation import recompute
from iota_p2p.audit.silence import silences
from iota_p2p.audit.verification import verify
from iota_p2p.validation.validation import open_validation
from iota_p2p.validation.validator import Validator
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.result import CertifiedResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from iota_p2p_testnet.validator_adversaries import (
    EquivocatingValidator,
    FalseValidator,
    LyingValidator,
    WithholdingValidator,
)
from tests.sim.test_validation import config_of
from tests.sim.training_swarms import SLOW


@dataclass(slots=True)
class Outcome:
    """What came of a run of four validators, the last of which lied."""

    liar: PeerId
    results: dict[PeerId, list[CertifiedResult]]
    records: dict[PeerId, list[ScoreRecord]]
    dossier: Dossier = field(init=False)

    def failures(self) -> list[Failure]:
        return [*verify(self.dossier), *recompute(self.dossier).failures]


async def run_with(folder: Path, kind: type[Validator], num_results: int = 3) -> Outcome:
    """Let three honest validators and one of a kind score epochs until everybody has so many results."""
    spec = small_run(folder, target_microbatches=60)
    async with open_training_swarm(2, spec, folder) as swarm, AsyncExitStack() as stack:
        outcome = Outcome(PeerId(""), {}, {})
        for number in range(4):
            member = await swarm.start(number, pinned=(number % 2,), costs=SLOW)
            config = config_of(folder, member, stack)
            config = replace(config, replay_ppm=0, kind=kind if number == 3 else Validator)
            validation = await stack.enter_async_context(open_validation(member.peer, member.trainer.share, config))
            me = member.peer.identity.peer_id
            validation.validator.on_result = outcome.results.setdefault(me, []).append
            validation.validator.on_record = outcome.records.setdefault(me, []).append
        outcome.liar = me
        await swarm.until(lambda: min(map(len, outcome.results.values())) >= num_results, timeout_s=300)
        await trio.sleep(2)
    outcome.dossier = open_dossier(read_archive([folder]))
    return outcome


def assert_results_are_the_honest_ones(outcome: Outcome) -> None:
    """Every epoch in turn has one result, and what it says of everybody is what some honest validator says."""
    by_epoch: dict[int, set[bytes]] = {}
    for certified in (one for found in outcome.results.values() for one in found):
        by_epoch.setdefault(certified.payload.epoch, set()).add(certified.result.payload_bytes)
    assert sorted(by_epoch) == list(range(len(by_epoch)))
    assert {len(results) for results in by_epoch.values()} == {1}
    honest = [record for me, said in outcome.records.items() if me != outcome.liar for record in said]
    for certified in outcome.results[outcome.liar]:
        for peer_id, score, _ in certified.payload.payouts:
            rows = [row for one in honest if one.epoch == certified.payload.epoch for row in one.rows]
            assert score in {row.score.score for row in rows if row.peer_id == peer_id}


@pytest.mark.slow
async def test_false_records__change_no_result_and_are_named_by_recomputing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    outcome = await run_with(tmp_path, FalseValidator)
    assert_results_are_the_honest_ones(outcome)
    failures = outcome.failures()
    assert {(failure.rule, failure.guilty) for failure in failures} == {("score-evidence", outcome.liar)}
    assert verify(outcome.dossier) == []


@pytest.mark.slow
async def test_equivocation__spoils_no_result_and_is_named_by_a_proof(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Two records of every epoch and two preferences in every round; from the third epoch on it costs the score."""
    outcome = await run_with(tmp_path, EquivocatingValidator, num_results=4)
    assert_results_are_the_honest_ones(outcome)
    assert {one.guilty for one in outcome.dossier.equivocations} == {outcome.liar}
    assert {one.kind for one in outcome.dossier.equivocations} == {"score", "preference"}
    assert {failure.guilty for failure in outcome.failures()} == {outcome.liar}
    later = [one for me, said in outcome.records.items() if me != outcome.liar for one in said if one.epoch >= 2]
    rows = [row for record in later for row in record.rows if row.peer_id == outcome.liar]
    assert {(row.score.score, row.score.reason) for row in rows} == {(0, "faults")}


@pytest.mark.slow
async def test_withholding__changes_no_result(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A silent validator has no part in any result, and where everybody is elected, each result names it."""
    outcome = await run_with(tmp_path, WithholdingValidator)
    assert_results_are_the_honest_ones(outcome)
    assert outcome.failures() == []
    assert not outcome.records[outcome.liar]
    certified = [one for found in outcome.results.values() for one in found]
    assert all(outcome.liar not in one.validators for one in certified)
    assert all(outcome.liar in one.silent for one in certified)
    named = silences(outcome.dossier)
    assert {(one.peer_id, one.has_record) for one in named if not one.has_record} == {(outcome.liar, False)}
    assert {one.epoch for one in named if one.peer_id == outcome.liar} == {one.payload.epoch for one in certified}


@pytest.mark.slow
async def test_one_who_does_all_three__changes_no_result(tmp_path: Path, autojump_clock: MockClock) -> None:
    outcome = await run_with(tmp_path, LyingValidator, num_results=4)
    assert_results_are_the_honest_ones(outcome)
    assert {failure.guilty for failure in outcome.failures()} == {outcome.liar}
