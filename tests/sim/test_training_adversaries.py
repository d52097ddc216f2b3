"""A lying peer is refused by a named rule and routed around, and nobody honest is charged for it."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
import trio
from _pytest.mark import ParameterSet
from trio.testing import MockClock

from iota_p2p.training import stage_worker, standing
from iota_p2p_testnet import adversaries
from iota_p2p_testnet.adversaries import Lie, RequestLie, lie_in_answers, lie_in_requests
from iota_p2p_testnet.training_swarm import Twist, open_training_swarm, small_run
from tests.sim.training_swarms import SLOW, drained, noting_losses, offences, total

LIAR = 3


def slow(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("lie", "rule"),
    [
        slow(adversaries.short_gradient, "gradient-bytes"),
        slow(adversaries.other_gradient, "receipt-payload"),
        (adversaries.nan_gradient, "boundary-range"),
        (adversaries.forged_receipt, "receipt-signer"),
        slow(adversaries.no_answer_at_all, "message-field"),
        slow(adversaries.answers_of_the_past(), "response-chain"),
    ],
)
async def test_liar__charged_and_passed_over_by_its_callers(
    lie: Lie, rule: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One of two replicas of the middle stage lies; the pipeline goes on through the other."""
    spec = small_run(tmp_path, num_stages=3, boundary="none")
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        source = await swarm.start(0, pinned=(0,), costs=SLOW)
        for stage in (1, 2):
            await swarm.start(stage, pinned=(stage,), costs=SLOW)
        await swarm.start(LIAR, pinned=(1,), costs=SLOW, twist=lie_in_answers(lie))
        await swarm.until(lambda: LIAR in offences(swarm))
        counts = offences(swarm)[LIAR]
        assert counts.keys() == {rule}
        await trio.sleep(2)  # those that were under way when it was found out have come back
        counts = offences(swarm)[LIAR]
        completed = total(swarm, "completed")
        await swarm.until(lambda: source.trainer.share.counts.completed > completed + 10)
        assert offences(swarm) == {LIAR: counts}
        await drained(swarm)
        assert total(swarm, "lost") == 0


@pytest.mark.parametrize("twist", [adversaries.hang, slow(adversaries.dawdle(30)), slow(adversaries.decline)])
async def test_idler__passed_over_and_costs_no_microbatch(
    twist: Twist, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One of two replicas of the last stage does nothing of use: at once, 60 % of what is done without it is done.

    All in front of it stay in good standing.
    """
    spec = small_run(tmp_path, num_stages=3)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        source = await swarm.start(0, pinned=(0,), costs=SLOW)
        for stage in (1, 2):
            await swarm.start(stage, pinned=(stage,), costs=SLOW)
        await swarm.until(lambda: source.trainer.share.counts.completed > 10)
        await swarm.start(LIAR, pinned=(2,), costs=SLOW, twist=twist)
        before, start_s = source.trainer.share.counts.completed, trio.current_time()
        await swarm.until(lambda: source.trainer.share.counts.completed > before + 80)
        # Alone the last stage does one in 0.06 s.
        assert trio.current_time() - start_s < 80 * 0.06 / 0.6
        await drained(swarm)
        assert total(swarm, "lost") == 0
        assert offences(swarm) == {}


async def test_retry__behind_a_replica_of_equal_weights_is_no_replay(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Without inner steps replicas stay equal: stages 2 and 3 see the same bytes again, on another chain."""
    spec = small_run(tmp_path, num_stages=4, microbatches_per_step=1 << 10)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        source = await swarm.start(0, pinned=(0,), costs=SLOW)
        for stage in (1, 2, 3):
            await swarm.start(stage, pinned=(stage,), costs=SLOW)
        await swarm.start(LIAR + 1, pinned=(1,), costs=SLOW, twist=adversaries.work_in_vain)
        await swarm.until(lambda: source.trainer.share.counts.completed > 40)
        assert total(swarm, "retried") > 0
        await drained(swarm)
        assert total(swarm, "lost") == 0
        assert offences(swarm) == {}


@pytest.mark.parametrize(
    ("lie", "rule"),
    [
        slow(adversaries.short_activation, "activation-bytes"),
        (adversaries.other_activation, "receipt-payload"),
        (adversaries.nan_activation, "boundary-range"),
        slow(adversaries.stolen_receipt, "receipt-signer"),
        (adversaries.far_counter, "microbatch-counter"),
        (adversaries.requests_of_the_past(), "activation-replay"),
    ],
)
async def test_liar__charged_by_those_it_calls(
    lie: RequestLie, rule: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two sources lies; the other's microbatches all come home."""
    monkeypatch.setattr(stage_worker, "ANSWERS_KEPT", 1)
    monkeypatch.setattr(standing, "SHUN_S", 1.0)  # the liar's, too, which blames others for its confusion
    spec = small_run(tmp_path, boundary="none")
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        honest = [await swarm.start(number, pinned=(number,), costs=SLOW) for number in (0, 1)]
        liar = await swarm.start(LIAR, pinned=(0,), costs=SLOW, twist=lie_in_requests(lie))
        with noting_losses(honest[0]) as losses:
            await swarm.until(lambda: len(losses) > 30)
        await swarm.until(lambda: LIAR in offences(swarm))
        swarm.crash(liar)
        await drained(swarm)
        assert total(swarm, "lost") == 0
        charged = offences(swarm)
        assert {number: set(rules) for number, rules in charged.items()} == {LIAR: {rule}}


async def test_request__of_a_closed_epoch_is_declined_without_blame(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A source that does not turn its epochs over gets `wrong-epoch`, which a laggard may get, too."""
    spec = small_run(tmp_path, target_microbatches=20)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        honest = [await swarm.start(number, pinned=(number % 2,), costs=SLOW) for number in range(3)]
        stale = await swarm.start(LIAR, pinned=(0,), costs=SLOW, twist=never_turn_over)
        await swarm.until(lambda: honest[1].trainer.share.epoch >= 2)
        done = stale.trainer.share.counts.completed
        await trio.sleep(3)
        assert stale.trainer.share.counts.completed <= done + stale.trainer.source.in_flight
        assert total(swarm, "lost") == 0
        assert offences(swarm) == {}


async def never_turn_over(_: object, trainer: object) -> None:
    async def stay(_: int) -> None:
        await trio.lowlevel.checkpoint()

    trainer.clock.turn_over = stay  # type: ignore[attr-defined]  # a Trainer, whatever `Twist` calls it
    await trio.lowlevel.checkpoint()
