"""Ballots of validators that hear each other late."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.validation.ballot import Ballot, Records
from iota_p2p.validation.validation import open_validation
from iota_p2p.validation.validator import Validator
from iota_p2p_protocols.scoring.result import CertifiedResult
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from tests.sim.test_validation import config_of
from tests.sim.training_swarms import SLOW


class LateBallot(Ballot):
    """Says what it prefers in the first round, and is busy for the rest of it."""

    async def _take_part(self, records: Records, number: int, elapsed: float) -> None:
        spoken = (0, self.bulletin.member.identity.peer_id) in self.bulletin.said(self.epoch).preferences
        if number or not spoken:
            await super()._take_part(records, number, elapsed)


class LateValidator(Validator):
    ballot = LateBallot


@pytest.mark.slow
async def test_validator__that_sees_the_quorum_late_votes_in_the_next_round(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Three of three must vote, and one of them is late: the others have voted, and say no more, when it looks."""
    spec = small_run(tmp_path, target_microbatches=60)
    results: list[list[CertifiedResult]] = []
    async with open_training_swarm(3, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        for number in range(3):
            member = await swarm.start(number, pinned=(number % 2,), costs=SLOW)
            kind = LateValidator if number == 2 else Validator
            config = replace(config_of(tmp_path, member, stack), replay_ppm=0, kind=kind)
            validation = await stack.enter_async_context(open_validation(member.peer, member.trainer.share, config))
            results.append([])
            validation.validator.on_result = results[-1].append
        await swarm.until(lambda: min(map(len, results)) >= 2, timeout_s=120)
        await trio.sleep(1)
    assert {len(certified.validators) for found in results for certified in found[:2]} == {3}
