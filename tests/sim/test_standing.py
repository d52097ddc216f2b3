"""Who is called first depends on how they answered before, and nobody hangs more than one call for long."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

import trio
from trio.testing import MockClock

from iota_p2p.training.standing import LONGEST_PASS_OVER_S, PASS_OVER_S, SHUN_S, Standing
from iota_p2p_crypto.identity import PeerId

ONE, TWO = PeerId("one"), PeerId("two")
DRAWN = (ONE, TWO)


async def test_standing__keeps_the_draw_for_peers_without_any(autojump_clock: MockClock) -> None:
    assert list(Standing().order(DRAWN)) == [ONE, TWO]
    assert list(Standing().order(reversed(DRAWN))) == [TWO, ONE]


async def test_shunned__is_not_called_until_its_time_is_over(autojump_clock: MockClock) -> None:
    standing = Standing()
    standing.broke_rule(ONE)
    assert list(standing.order(DRAWN)) == [TWO]
    await trio.sleep(SHUN_S)
    assert list(standing.order(DRAWN)) == [ONE, TWO]


async def test_silent__comes_last_then_gets_one_call_and_twice_the_pause(autojump_clock: MockClock) -> None:
    standing = Standing()
    pause_s = PASS_OVER_S
    standing.failed(ONE)
    for _ in range(6):
        assert list(standing.order(DRAWN)) == [TWO, ONE]
        await trio.sleep(pause_s)
        assert list(standing.order(DRAWN)) == [ONE, TWO]
        standing.calling(ONE)
        assert list(standing.order(DRAWN)) == [TWO, ONE]  # all others go round it meanwhile
        pause_s = min(2 * pause_s, LONGEST_PASS_OVER_S)
        standing.failed(ONE)


async def test_silent__is_as_good_as_new_once_it_answers(autojump_clock: MockClock) -> None:
    standing = Standing()
    for _ in range(8):  # all that were under way
        standing.failed(ONE)
    await trio.sleep(PASS_OVER_S)
    standing.calling(ONE)
    standing.answered(ONE)
    assert list(standing.order(DRAWN)) == [ONE, TWO]
    standing.failed(ONE)
    await trio.sleep(PASS_OVER_S)
    assert list(standing.order(DRAWN)) == [ONE, TWO]


async def test_standing__forgets_those_long_gone(autojump_clock: MockClock) -> None:
    standing = Standing()
    standing.failed(ONE)
    standing.broke_rule(TWO)
    await trio.sleep(PASS_OVER_S + max(LONGEST_PASS_OVER_S, SHUN_S))
    assert list(standing.order(DRAWN)) == [ONE, TWO]
    assert standing == Standing()
