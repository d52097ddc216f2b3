"""The compute lane: one at a time, backward first, and nobody who gives up stops the others."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.training.lane import BACKGROUND_EVERY, Lane, Priority, SimulatedLane, ThreadLane

B, F, G = Priority.BACKWARD, Priority.FORWARD, Priority.BACKGROUND


def make_lane(cost_s: float = 1.0) -> SimulatedLane:
    return SimulatedLane(lambda _: cost_s)


async def run_all(lane: Lane, pieces: list[tuple[Priority, tuple[int, ...]]]) -> list[int]:
    """Ask for all at once; return their indices in the order in which they were done."""
    done: list[int] = []
    async with trio.open_nursery() as nursery:
        for index, (priority, order) in enumerate(pieces):
            nursery.start_soon(lane.run, priority, partial(done.append, index), order)
    return done


async def test_lane__takes_backward_first_and_then_by_order(autojump_clock: MockClock) -> None:
    pieces = [(F, (3,)), (F, (2,)), (F, (1,)), (B, (9,)), (B, (3,)), (F, (1, 0))]
    lane = make_lane()
    assert await run_all(lane, pieces) == [4, 3, 2, 5, 1, 0]
    assert lane.busy_s == len(pieces)
    assert lane.queue_length == 0


async def test_lane__gives_the_background_a_small_share(autojump_clock: MockClock) -> None:
    done = await run_all(make_lane(), [(G, ()), *[(F, (i,)) for i in range(40)]])
    assert done.index(0) == BACKGROUND_EVERY - 1


@pytest.mark.parametrize("when_s", [0, 0.5e-6, 0.5, 1.0, 1.5, 2.5])
async def test_lane__goes_on_when_one_gives_up(when_s: float, autojump_clock: MockClock) -> None:
    """The second of three is cancelled while arriving, waiting, or at work."""
    lane = make_lane()
    done: list[str] = []

    async def give_up() -> None:
        with trio.move_on_after(when_s):
            await lane.run(F, partial(done.append, "second"), (2,))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run, F, partial(done.append, "first"), (1,))
        nursery.start_soon(give_up)
        nursery.start_soon(lane.run, F, partial(done.append, "third"), (3,))
    assert done == (["first", "third"] if when_s <= 1 else ["first", "second", "third"])
    await lane.run(B, partial(done.append, "fourth"))
    assert done[-1] == "fourth"


async def test_lane__goes_on_after_work_that_fails(autojump_clock: MockClock) -> None:
    lane = make_lane()
    with pytest.raises(ZeroDivisionError):
        await lane.run(F, lambda: 1 / 0)
    assert await lane.run(F, lambda: 1) == 1


async def test_lane__finishes_what_it_began_though_its_caller_gave_up(autojump_clock: MockClock) -> None:
    """A result that was worked for is returned, as from a thread: else it would be worked for twice."""
    lane, result = make_lane(), 0
    with trio.move_on_after(0.5):
        result = await lane.run(B, lambda: 7)
    assert result == 7


async def test_thread_lane__runs_one_at_a_time_off_the_main_thread() -> None:
    lane = ThreadLane()
    assert sorted(await run_all(lane, [(F, ()), (B, ()), (G, ())])) == [0, 1, 2]
    assert await lane.beside(lambda: 3) == 3
    assert lane.queue_length == 0


async def test_thread_lane__counts_processor_time_by_what_was_done() -> None:
    """Also of work that fails."""
    lane = ThreadLane()
    await lane.run(B, partial(sum, range(300_000)))
    await lane.beside(int)
    with pytest.raises(ZeroDivisionError):
        await lane.run(F, lambda: sum(range(300_000)) / 0)
    assert lane.cpu_s.keys() == {"backward", "forward", "beside"}
    assert min(lane.cpu_s["backward"], lane.cpu_s["forward"]) > lane.cpu_s["beside"] >= 0
