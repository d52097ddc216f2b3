"""`iota-p2p audit`: an honest run holds; one changed byte, one swapped pair, one lie is found and named."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from iota_p2p.audit.archive import Archive, read_archive
from iota_p2p.audit.comparison import compare_archives
from iota_p2p.audit.dossier import Dossier, open_dossier
from iota_p2p.audit.explanation import explain, lines_of
from iota_p2p.audit.failure import Check, Failure
from iota_p2p.audit.recomputation import recompute
from iota_p2p.audit.silence import Silence, silences
from iota_p2p.audit.verification import verify
from iota_p2p.cli.commands import app
from iota_p2p.ledger.ledger import FILE_NAME, Fact
from iota_p2p_crypto import vrf
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity
from iota_p2p_crypto.transparency_log import TransparencyLog
from iota_p2p_crypto.tree_head import sign_tree_head
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.combination import combine
from iota_p2p_protocols.scoring.conviction import EQUIVOCATION_LAG
from iota_p2p_protocols.scoring.equivocation import make_equivocation_proof
from iota_p2p_protocols.scoring.result import EpochResult, payouts_of
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_protocols.scoring.seed_chain import next_seed
from tests.audit.worlds import NUM_EPOCHS, World, build_world, common
from tests.scoring.scenes import NOW_S, RULES, RUN, STAGES, VALIDATORS, noisy

BAD = STAGES[1][1]


def harmed(path: Sequence[Identity], rng: Random) -> int:
    return round(noisy(path, rng) * (1.15 if BAD in path else 1.0))


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(loss_of=harmed)


def dossier_of(facts: Sequence[Fact]) -> Dossier:
    archive = Archive()
    archive.add(facts, Path("memory"))
    return open_dossier(archive)


def replaced(world: World, old: Fact, new: Fact) -> list[Fact]:
    return [new if fact is old else fact for fact in world.facts]


def fact_of(world: World, kind: str, number: int = 0) -> Fact:
    return [fact for fact in world.facts if fact.kind == kind][number]


def checks(failures: Sequence[Failure]) -> set[Check]:
    return {failure.check for failure in failures}


def test_honest_run__holds_and_is_borne_out_by_its_evidence(world: World) -> None:
    dossier = dossier_of(world.facts)
    assert verify(dossier) == []
    outcome = recompute(dossier)
    assert outcome.failures == []
    assert outcome.num_records == NUM_EPOCHS * len(VALIDATORS)
    assert outcome.num_losses == 40 * outcome.num_records


SIGNED_KINDS = ("evidence", "registration", "result", "score", "tree-head")


@pytest.mark.parametrize("kind", SIGNED_KINDS)
def test_one_changed_byte__of_any_signed_fact_is_found_and_named(world: World, kind: str) -> None:
    rng = Random(kind)  # noqa: S311 - test data
    for _ in range(8):
        old = rng.choice([fact for fact in world.facts if fact.kind == kind])
        named = [one for one in verify(dossier_of(replaced(world, old, damaged(old, rng)))) if one.check == Check.FORM]
        assert len(named) == 1
        assert old.kind in named[0].subject
        assert f"epoch {old.epoch} by {old.signer}" in named[0].subject


@pytest.mark.parametrize("kind", ["evidence-list", "loss-record"])
def test_one_changed_byte__of_what_others_name_by_digest_is_missed(world: World, kind: str) -> None:
    rng = Random(kind)  # noqa: S311 - test data
    for _ in range(3):
        old = rng.choice([fact for fact in world.facts if fact.kind == kind])
        dossier = dossier_of([damaged(fact, rng) if fact.envelope == old.envelope else fact for fact in world.facts])
        assert [*verify(dossier), *recompute(dossier).failures]


def damaged(fact: Fact, rng: Random) -> Fact:
    envelope = bytearray(fact.envelope)
    envelope[rng.randrange(len(envelope))] ^= rng.randint(1, 255)
    return Fact(fact.kind, fact.epoch, fact.signer, bytes(envelope))


def test_swapped_records__are_found_in_the_place_of_the_other(world: World) -> None:
    one, other = fact_of(world, "score", 0), fact_of(world, "score", 5)
    facts = [
        Fact(fact.kind, fact.epoch, fact.signer, (other if fact is one else one).envelope)
        if fact in (one, other)
        else fact
        for fact in world.facts
    ]
    failures = verify(dossier_of(facts))
    assert [failure.check for failure in failures] == [Check.PLACE, Check.PLACE]


def test_missing_record__leaves_a_gap_in_chain_log_and_result(world: World) -> None:
    gone = fact_of(world, "score", len(VALIDATORS))  # the first validator's second
    failures = verify(dossier_of([fact for fact in world.facts if fact is not gone]))
    assert checks(failures) == {Check.CHAIN, Check.LOG, Check.MISSING}


def signed_again(world: World, **changes: Any) -> tuple[Fact, Fact]:
    """Return the first validator's last record, and the same with other fields under its valid signature."""
    old = [fact for fact in world.facts if fact.kind == "score" and fact.signer == VALIDATORS[0].peer_id][-1]
    record = world.records[VALIDATORS[0].peer_id][-1].payload.model_copy(update=changes)
    return old, Fact(old.kind, old.epoch, old.signer, seal_message(record, VALIDATORS[0]))


def test_boosted_score__breaks_its_own_sum(world: World) -> None:
    row, *rest = world.records[VALIDATORS[0].peer_id][-1].payload.rows
    boosted = row.model_copy(update={"score": row.score.model_copy(update={"score": row.score.score + 1})})
    failures = verify(dossier_of(replaced(world, *signed_again(world, rows=(boosted, *rest)))))
    assert Check.SUM in checks(failures)
    assert failures[0].guilty == VALIDATORS[0].peer_id


def test_boosted_work__fits_together_but_is_not_borne_out(world: World) -> None:
    last = world.records[VALIDATORS[0].peer_id][-1].payload
    row, *rest = last.rows
    findings = row.findings.model_copy(update={"work": 2 * row.findings.work})
    lie = row.model_copy(
        update={"findings": findings, "score": combine(findings, last.epoch, last.mean_loss_micronats, RULES)}
    )
    dossier = dossier_of(replaced(world, *signed_again(world, rows=(lie, *rest))))
    assert Check.SUM not in checks(verify(dossier))
    failures = recompute(dossier).failures
    assert [(failure.check, failure.guilty) for failure in failures] == [(Check.RECOMPUTED, VALIDATORS[0].peer_id)]
    assert f"expected {row.findings.work} as work of {row.peer_id}" in failures[0].reason


def test_steps_behind__that_no_contribution_shows_are_missed(world: World) -> None:
    row, *rest = world.records[VALIDATORS[0].peer_id][-1].payload.rows
    found = row.findings.model_copy(update={"synchronisation_ppm": 0})
    payload = world.records[VALIDATORS[0].peer_id][-1].payload
    score = combine(found, payload.epoch, payload.mean_loss_micronats, RULES)
    behind = row.model_copy(update={"findings": found, "score": score})
    failures = recompute(dossier_of(replaced(world, *signed_again(world, rows=(behind, *rest))))).failures
    assert [f"synchronisation of {row.peer_id}" in failure.reason for failure in failures] == [True]


def test_left_out_peer__is_missed(world: World) -> None:
    rows = world.records[VALIDATORS[0].peer_id][-1].payload.rows[1:]
    failures = recompute(dossier_of(replaced(world, *signed_again(world, rows=rows)))).failures
    assert ["row of" in failure.reason for failure in failures] == [True]


def test_another_validators_election__does_not_count(world: World) -> None:
    theirs = world.records[VALIDATORS[1].peer_id][-1].payload.election
    failures = verify(dossier_of(replaced(world, *signed_again(world, election=theirs))))
    assert Check.ELECTION in checks(failures)


def test_two_records_of_one_epoch__convict_their_signer(world: World) -> None:
    old, new = signed_again(world, software="another")
    failures = verify(dossier_of([*world.facts, new]))
    guilty = [failure.guilty for failure in failures if failure.check == Check.EQUIVOCATION]
    assert guilty == [VALIDATORS[0].peer_id]
    epoch = old.epoch + EQUIVOCATION_LAG
    proof = Fact("equivocation", epoch, old.signer, make_equivocation_proof(old.envelope, new.envelope))
    failures = verify(dossier_of([*world.facts, proof]))
    assert [failure.guilty for failure in failures] == guilty
    moved = replace(proof, signer=VALIDATORS[1].peer_id)
    assert Check.PLACE in checks(verify(dossier_of([*world.facts, moved])))


def test_rewritten_log__does_not_match_its_head(world: World) -> None:
    other = TransparencyLog(RUN, VALIDATORS[0].peer_id, [b"rewritten"])
    head = sign_tree_head(other.head(NOW_S), VALIDATORS[0])
    rewritten = Fact("tree-head", 0, VALIDATORS[0].peer_id, head)
    failures = verify(dossier_of([*world.facts, rewritten]))
    assert {failure.check for failure in failures} == {Check.LOG, Check.EQUIVOCATION}
    assert {failure.guilty for failure in failures} == {VALIDATORS[0].peer_id}
    alone = verify(dossier_of(replaced(world, fact_of(world, "tree-head"), rewritten)))
    assert [(failure.check, failure.guilty) for failure in alone] == [(Check.LOG, VALIDATORS[0].peer_id)]


@pytest.mark.parametrize(
    ("changes", "signers", "rule"),
    [
        ({}, VALIDATORS[:2], "result-quorum"),
        ({}, (*VALIDATORS[:3], BAD), "result-signer"),
        ({"seed": bytes(32)}, VALIDATORS[:3], "result-seed"),
        ({"pot": 0, "payouts": ()}, VALIDATORS[:3], "result-payouts"),
    ],
)
def test_result__that_does_not_follow_is_refused(
    world: World, changes: dict[str, Any], signers: tuple[Identity, ...], rule: str
) -> None:
    old = fact_of(world, "result", NUM_EPOCHS - 1)
    payload = open_signed(old.envelope, EpochResult).payload.model_copy(update=changes)
    new = Fact("result", old.epoch, old.signer, seal_message(payload, *signers))
    failures = verify(dossier_of(replaced(world, old, new)))
    assert [(failure.check, failure.rule) for failure in failures] == [(Check.RESULT, rule)]


def test_missing_evidence__is_called_missing_not_false(world: World) -> None:
    gone = fact_of(world, "loss-record")
    dossier = dossier_of([fact for fact in world.facts if fact.envelope != gone.envelope])
    failures = recompute(dossier).failures
    assert checks(failures) == {Check.MISSING}
    assert len(failures) == len(VALIDATORS)
    explained = explain(dossier, BAD.peer_id, gone.epoch)
    assert all(opinion.part is None for opinion in explained[0].opinions)


def test_explain__names_what_decided_and_who_agreed(world: World) -> None:
    found = explain(dossier_of(world.facts), BAD.peer_id)
    assert [one.epoch for one in found] == list(range(NUM_EPOCHS))
    for one in found:
        assert len(one.opinions) == len(VALIDATORS)
        assert all(opinion.agrees for opinion in one.opinions)
        # While the run warms up nobody is blamed for harm.
        assert {opinion.score.reason for opinion in one.opinions} == {"clasp" if one.epoch else "presence"}
    for opinion in (one for epoch in found for one in epoch.opinions):
        assert opinion.part is not None
        assert opinion.part.harm.low == opinion.findings.clasp_low
        assert "by all records +" in "\n".join(lines_of(opinion, RULES))
    honest = explain(dossier_of(world.facts), STAGES[0][0].peer_id, epoch=1)
    assert [opinion.score.reason for opinion in honest[0].opinions] == ["presence"] * len(VALIDATORS)
    assert explain(dossier_of(world.facts), VALIDATORS[0].peer_id) == []


def test_diff__names_contradictions_and_gaps(world: World) -> None:
    whole = dossier_of(world.facts)
    assert compare_archives(whole, dossier_of(world.facts)).failures == ()
    other = dossier_of(replaced(world, *signed_again(world, software="another")))
    outcome = compare_archives(whole, other)
    assert [failure.guilty for failure in outcome.failures] == [VALIDATORS[0].peer_id]
    fewer = dossier_of([fact for fact in world.facts if fact.kind != "result"])
    assert compare_archives(whole, fewer).only_first == tuple(f"result of epoch {epoch}" for epoch in range(NUM_EPOCHS))


def test_dossier__asks_which_run_where_there_are_several(world: World) -> None:
    stray = world.records[VALIDATORS[0].peer_id][0].payload.model_copy(update={"run_id": bytes(32)})
    fact = Fact("score", 0, VALIDATORS[0].peer_id, seal_message(stray, VALIDATORS[0]))
    with pytest.raises(UserError, match="--run-id"):
        dossier_of([*world.facts, fact])
    with pytest.raises(UserError, match="none"):
        dossier_of([])


def run(*arguments: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(app, ["audit", *arguments])
    return outcome.exit_code, outcome.output


def test_commands__on_a_home_and_on_its_bundle(world: World, tmp_path: Path) -> None:
    home, bundle = world.write(tmp_path / "home"), tmp_path / "run.iota-bundle"
    assert run("export", "--home", str(home), "--out", str(bundle))[0] == 0
    for path in (home, bundle):
        status, output = run("verify", str(path))
        assert status == 0
        assert "all of it holds" in output
        status, output = run("recompute", str(path), "--json")
        report = json.loads(output)
        assert (status, report["failures"]) == (0, [])
        assert report["counts"]["recomputed records"] == NUM_EPOCHS * len(VALIDATORS)
    assert run("diff", str(home), str(bundle))[0] == 0
    status, output = run("explain", BAD.peer_id[-8:], str(home), "--epoch", "1")
    assert status == 0
    assert "what decides: clasp" in output
    assert "agrees with the result" in output
    assert json.loads(run("explain", BAD.peer_id, str(bundle), "--json")[1])["epochs"][0]["certified"] is not None


def test_commands__name_a_byte_changed_in_the_ledger_file(world: World, tmp_path: Path) -> None:
    home = world.write(tmp_path / "home")
    with sqlite3.connect(home / FILE_NAME) as connection:
        connection.execute(
            "UPDATE facts SET envelope = CAST(substr(envelope, 1, 200) || x'00' || substr(envelope, 202) AS BLOB)"
            " WHERE kind = 'score' AND epoch = 1 AND signer = ?",
            (VALIDATORS[2].peer_id,),
        )
    connection.close()
    status, output = run("verify", str(home))
    assert status == Check.FORM
    assert f"of epoch 1 by {VALIDATORS[2].peer_id}" in output


def test_commands__go_on_with_the_rest_of_a_damaged_bundle(world: World, tmp_path: Path) -> None:
    bundle = tmp_path / "run.iota-bundle"
    run("export", "--home", str(world.write(tmp_path / "home")), "--out", str(bundle))
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[: len(whole) // 2])
    status, output = run("verify", str(bundle))
    assert status == Check.FORM
    assert "bundle-cut-off" in output


def test_export__overwrites_nothing(world: World, tmp_path: Path) -> None:
    home = world.write(tmp_path / "home")
    (tmp_path / "there").write_text("mine")
    assert run("export", "--home", str(home), "--out", str(tmp_path / "there"))[0] != 0
    assert (tmp_path / "there").read_text() == "mine"


def test_archive__of_the_world_is_what_was_written(world: World, tmp_path: Path) -> None:
    archive = read_archive([world.write(tmp_path / "home")])
    assert {fact.envelope for fact in archive.all()} == {fact.envelope for fact in world.facts}


def test_records__stay_within_the_size_the_domain_allows(world: World) -> None:
    record = world.records[VALIDATORS[0].peer_id][0]
    row_bytes = len(record.payload_bytes) / len(record.payload.rows)
    assert row_bytes * 1000 < ScoreRecord.domain.max_payload_bytes


def without_records_of(world: World, validator: Identity, epoch: int) -> list[Fact]:
    """Return the facts of a run in which a validator said nothing of its last epoch."""
    silent = [one for one in world.records[validator.peer_id] if one.payload.epoch == epoch]
    records = [mine[epoch] for signer, mine in world.records.items() if signer != validator.peer_id]
    voters = dict.fromkeys((one.peer_id for one in VALIDATORS), 1)
    outputs = {one.signer: vrf.output_of(one.payload.election.proof) for one in records}
    result = EpochResult(
        **common(epoch),
        seed=next_seed(world.seeds[epoch + 1], epoch + 2, outputs),
        records=tuple(sorted(one.digest for one in records)),
        pot=RULES.pot,
        payouts=payouts_of(records, voters, RULES.pot),
    )
    envelope = seal_message(result, *(one for one in VALIDATORS if one is not validator))
    kept = [one for one in world.facts if one.envelope != silent[0].envelope_bytes and one.kind != "tree-head"]
    old = next(one for one in kept if (one.kind, one.epoch) == ("result", epoch))
    return [replace(one, envelope=envelope) if one is old else one for one in kept]


def test_silence__of_a_validator_is_named_by_the_result_and_fails_nothing(world: World, tmp_path: Path) -> None:
    last, silent = NUM_EPOCHS - 1, VALIDATORS[2]
    facts = without_records_of(world, silent, last)
    dossier = dossier_of(facts)
    assert verify(dossier) == []
    assert silences(dossier) == [Silence(last, silent.peer_id, 3, has_record=False)]
    home = World(facts=facts).write(tmp_path / "home")
    told = CliRunner().invoke(app, ["audit", "verify", str(home)])
    assert told.exit_code == 0
    assert f"epoch {last}: {silent.peer_id} was elected, and it published no record" in told.stdout
    as_json = json.loads(CliRunner().invoke(app, ["audit", "verify", str(home), "--json"]).stdout)
    assert [one["peer_id"] for one in as_json["silent"]] == [silent.peer_id]


def test_silence__is_told_from_a_record_that_came_too_late(world: World) -> None:
    last, late = NUM_EPOCHS - 1, VALIDATORS[2]
    record = world.records[late.peer_id][last]
    facts = [*without_records_of(world, late, last), Fact("score", last, late.peer_id, record.envelope_bytes)]
    assert silences(dossier_of(facts)) == [Silence(last, late.peer_id, 3, has_record=True)]
    assert silences(dossier_of(world.facts)) == []
