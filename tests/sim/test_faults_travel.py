"""A proof of what one replica did in a merge reaches every validator, every record and the audit."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.audit.archive import read_archive
from iota_p2p.audit.dossier import open_dossier
from iota_p2p.audit.explanation import explain
from iota_p2p.audit.recomputation import recompute
from iota_p2p.audit.verification import verify
from iota_p2p.run.spec import MergeSpec
from iota_p2p.validation.validation import open_validation
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.result import CertifiedResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_testnet.merge_adversaries import merge_twist
from iota_p2p_testnet.training_swarm import Costs, open_training_swarm, small_run
from tests.sim.test_validation import config_of

COSTS = Costs(forward_s=0.03, backward_s=0.06, background_s=0.03)


@pytest.mark.slow
async def test_bad_reducer__is_zeroed_by_every_validator_and_found_by_an_audit(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The founder holds another stage and takes no part in the merge, so it knows of the fault by the proof alone."""
    spec = small_run(tmp_path, num_stages=2, merge=MergeSpec(), target_microbatches=40)
    records: dict[int, list[ScoreRecord]] = {number: [] for number in range(5)}
    results: list[CertifiedResult] = []
    async with open_training_swarm(1, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        for number in range(5):
            twist = merge_twist("bad-reducer") if number == 4 else None
            member = await swarm.start(number, pinned=(min(number, 1),), costs=COSTS, twist=twist)
            config = config_of(tmp_path, member, stack)
            validation = await stack.enter_async_context(open_validation(member.peer, member.trainer.share, config))
            assert member.trainer.merger is not None
            member.trainer.merger.on_fault = validation.docket.file
            validation.validator.on_record = records[number].append
            validation.validator.on_result = results.append
        liar = member.peer.identity.peer_id
        await swarm.until(partial(_scored_twice, records), 300)
        await trio.sleep(2)
    proved = {record.epoch for said in records.values() for record in said if record.proofs}
    assert proved
    honest = [record for number in range(4) for record in records[number] if record.epoch in proved]
    assert {number for number in range(4) if any(record.epoch in proved for record in records[number])} == {0, 1, 2, 3}
    for record in honest:
        (row,) = [row for row in record.rows if row.peer_id == liar]
        assert (row.score.score, row.score.reason) == (0, "faults")
        assert {row.peer_id for row in record.rows if row.findings.faults} == {liar}
    assert {row.findings.synchronisation_ppm for record in honest for row in record.rows} == {PPM}
    assert {result.payload.epoch for result in results} & proved
    for result in results:
        assert result.payload.epoch not in proved or liar not in {peer_id for peer_id, *_ in result.payload.payouts}
    dossier = open_dossier(read_archive([tmp_path]))
    assert verify(dossier) == []
    assert recompute(dossier).failures == []
    told = explain(dossier, liar, min(proved))
    assert "reducer fault" in told[0].proofs[0][0]
    assert told[0].proofs[0][1] >= 3
    dossier.convictions.clear()
    assert {failure.rule for failure in recompute(dossier).failures} == {"proof-missing"}


def _scored_twice(records: dict[int, list[ScoreRecord]]) -> bool:
    return all(len(said) >= 2 for said in records.values())
