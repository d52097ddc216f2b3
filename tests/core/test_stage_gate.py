"""A stage's gate keeps work out while its replicas merge."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

import trio
from trio.testing import MockClock

from iota_p2p.training.stage_gate import StageGate


async def test_shut_gate__waits_for_those_inside_and_keeps_others_out(autojump_clock: MockClock) -> None:
    """What began before the merge ends before it; what comes during it begins after it."""
    gate, notes = StageGate(), list[str]()

    async def work(name: str, start_s: float) -> None:
        await trio.sleep(start_s)
        async with gate.passing():
            notes.append(f"{name} in")
            await trio.sleep(1)
            notes.append(f"{name} out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, "early", 0)
        nursery.start_soon(work, "late", 0.7)
        await trio.sleep(0.5)
        async with gate.shut():
            notes.append("shut")
            await trio.sleep(2)
            assert gate.shut_for_s == 2.5
            notes.append("open")
    assert notes == ["early in", "early out", "shut", "open", "late in", "late out"]
    assert gate.shut_for_s == 0


async def test_shut_gate__opens_when_its_merge_is_cancelled(autojump_clock: MockClock) -> None:
    """Also when it still waits for somebody inside."""
    gate = StageGate()
    async with trio.open_nursery() as nursery, gate.passing():
        with trio.move_on_after(1):
            async with gate.shut():
                raise AssertionError("expected to wait for ourselves")
        async with gate.passing():
            nursery.cancel_scope.cancel()
