"""A local network of real peers: started, watched, killed by plan, and stopped."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from iota_p2p_testnet.board import Board
from iota_p2p_testnet.events import PeerEvent
from iota_p2p_testnet.kill_plan import KillPlan
from iota_p2p_testnet.local_peer import LocalPeer
from iota_p2p_testnet.settling import Settling
from iota_p2p_testnet.testnet_home import TestnetHome

# A peer is up in a second or two; a loaded machine that is still importing torch takes longest.
START_S = 60.0
# Peers leave within 3 s of being asked (the daemon's stop included); then they are killed.
STOP_S = 4.0
# With --epochs only: nothing was trained for this long, and no epoch would ever come. Two deadlines of an epoch.
STALL_S = 120.0
# The machine's memory is shared out evenly, but a peer with less than this could hold no stage of the tiny run (90 to
# 114 MiB with all its slots).
LEAST_MEMORY_MIB = 128
_SHOW_EVERY_S = 0.5
_SAMPLE_EVERY_S = 1.0
_MAX_BOOTSTRAP = 3  # a later start joins through any peer that is up; one may just be dying


class View(Protocol):
    """What shows a testnet to its user."""

    def show(self, board: Board, now_s: float) -> None:
        """Show how things are."""

    def close(self) -> None:
        """Stop showing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """When a testnet is over; without either, when its user says so."""

    epochs: int | None = None
    minutes: float | None = None


@dataclass(slots=True)
class Verdict:
    """How it ended: by the user's signal, in failure for a reason, or well."""

    interrupted: bool = False
    failure: str | None = None


async def run_testnet(home: TestnetHome, board: Board, kills: KillPlan, ends: Ends, view: View) -> Verdict:
    """Run all peers of the board to the end; on return no process of theirs is left.

    The fork server (`start_fork_server`) must have been started.
    """
    testnet = _Testnet(home, board, kills, ends)
    try:
        await testnet.run(view)
    finally:
        view.close()
    return testnet.verdict


class _Testnet:
    def __init__(self, home: TestnetHome, board: Board, kills: KillPlan, ends: Ends) -> None:
        self.verdict = Verdict()
        self._home = home
        self._board = board
        self._kills = kills
        self._ends = ends
        self._began_s = trio.current_time()
        self._stopping = trio.Event()
        self._heard = trio.Event()  # set and replaced at every event
        self._killed: dict[int, float | None] = {}  # killed by plan and not yet handled: when each comes back
        self._resting: set[int] = set()  # dead, and coming back
        self._settling = None
        if not board.payments.off:
            self._settling = Settling(home, board.run_id, len(board.rows), board.payments)
        memory_mib = max(LEAST_MEMORY_MIB, _memory_mib() // len(board.rows))
        self._peers = {
            number: LocalPeer(home.peer(number), home.scratch, memory_mib, self._ear(number), row.adversary)
            for number, row in board.rows.items()
        }

    @property
    def _now_s(self) -> float:
        return trio.current_time() - self._began_s

    async def run(self, view: View) -> None:
        async with trio.open_nursery() as watching:
            watching.start_soon(self._show, view)
            watching.start_soon(self._sample)
            if self._settling is not None:
                watching.start_soon(self._settling.run, lambda note: self._board.say(self._now_s, note))
            closing = trio.CancelScope()
            async with trio.open_nursery() as living:
                with trio.CancelScope() as deciding:
                    watching.start_soon(self._stop_on_signal, deciding, (living.cancel_scope, closing))
                    await self._decide(living)
                self._stopping.set()
                self._board.say(self._now_s, "stopping all peers")
                for peer in self._peers.values():
                    peer.stop()
                living.cancel_scope.deadline = trio.current_time() + STOP_S
            if self._settling is not None:
                self._board.say(self._now_s, "settling and claiming what is left; Ctrl-C skips it")
                with closing:
                    await self._settling.finish()
            view.show(self._board, self._now_s)
            watching.cancel_scope.cancel()

    async def _stop_on_signal(self, deciding: trio.CancelScope, leaving: Sequence[trio.CancelScope]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self.verdict.interrupted or self._stopping.is_set():
                    for scope in leaving:  # the second time: at once
                        scope.cancel()
                self.verdict.interrupted = True
                deciding.cancel()

    async def _decide(self, living: trio.Nursery) -> None:
        """Start everything, kill by plan, and return when it is over."""
        self.verdict.failure = await self._start_all(living) or await self._run_to_end()
        if self.verdict.failure is None:
            self.verdict.failure = _disappointment(self._board)

    async def _start_all(self, living: trio.Nursery) -> str | None:
        """Start the first peer, then the others through it; return what is wrong, if anything."""
        first, *others = self._peers
        living.start_soon(self._keep, first)
        with trio.move_on_after(START_S):
            await self._until(lambda: self._board.rows[first].state in ("running", "ended"))
        if self._board.rows[first].state != "running":
            return f"the first peer did not come up: {self._peers[first].last_words()}"
        for number in others:
            living.start_soon(self._keep, number)
        with trio.move_on_after(START_S):
            await self._until(lambda: all(row.state in ("running", "ended") for row in self._board.rows.values()))
        self._board.say(self._now_s, f"{len(self._board.alive)} of {len(self._peers)} peers are up")
        return None

    async def _run_to_end(self) -> str | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_by_plan)
            began_s = self._now_s
            while True:
                await trio.sleep(_SAMPLE_EVERY_S / 2)
                if self._is_over(self._now_s - began_s):
                    failure = None
                    break
                if failure := self._stuck(began_s):
                    break
            nursery.cancel_scope.cancel()
        return failure

    def _is_over(self, elapsed_s: float) -> bool:
        epochs, minutes = self._ends.epochs, self._ends.minutes
        if epochs is not None and self._board.num_closed_for_most() >= epochs:
            return True
        return minutes is not None and elapsed_s >= minutes * 60

    def _stuck(self, began_s: float) -> str | None:
        if not self._board.alive and not self._resting:
            return "no peer is left"
        last_s = max(began_s, self._board.history.ended_s)
        if self._ends.epochs is not None and self._now_s - last_s > STALL_S:
            return f"nothing was trained for {STALL_S:.0f} s"
        return None

    async def _kill_by_plan(self) -> None:
        began_s = self._now_s
        while (due_s := self._kills.next_s) is not None:
            await trio.sleep(max(0.0, began_s + due_s - self._now_s))
            running = [number for number, row in self._board.rows.items() if row.state == "running"]
            holders = {stage: self._board.serving(stage) for stage in range(self._board.num_stages)}
            for kill in self._kills.due(self._now_s - began_s, running, holders):
                self._killed[kill.peer] = kill.back_s
                self._board.kills(kill.peer, self._now_s, kill.back_s)
                self._peers[kill.peer].kill()

    async def _keep(self, number: int) -> None:
        """Live a peer's lives, one after the other."""
        while True:
            self._board.starts(number, self._now_s)
            run_file = self._home.run_file if number == 1 else None
            code = await self._peers[number].live(self._bootstrap(number), run_file)
            if self._stopping.is_set():
                self._board.stops(number)
                return
            if number not in self._killed:
                self._board.ends(number, self._now_s, f"{_how(code)}: {self._peers[number].last_words()}")
                self._tell()
                return
            back_s = self._killed.pop(number)
            if back_s is None:
                return
            self._resting.add(number)
            with trio.move_on_after(back_s):
                await self._stopping.wait()
                return
            self._resting.discard(number)

    def _bootstrap(self, number: int) -> Sequence[str]:
        """Return what a user would be given: addresses of some that are up; nothing for the first of all."""
        rows = self._board.rows.values()
        others = [row.address for row in rows if row.state == "running" and row.number != number]
        return others[:_MAX_BOOTSTRAP]

    def _ear(self, number: int) -> Callable[[PeerEvent], None]:
        def hear(event: PeerEvent) -> None:
            self._board.apply(number, event, self._now_s)
            if self._settling is not None:
                self._settling.hear(number, event)
            self._tell()

        return hear

    def _tell(self) -> None:
        self._heard.set()
        self._heard = trio.Event()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._heard.wait()

    async def _show(self, view: View) -> None:
        while True:
            view.show(self._board, self._now_s)
            await trio.sleep(_SHOW_EVERY_S)

    async def _sample(self) -> None:
        while True:
            await trio.sleep(_SAMPLE_EVERY_S)
            self._board.tick(self._now_s)


def _disappointment(board: Board) -> str | None:
    """Return why a testnet that came to its end failed all the same."""
    if board.unexpected_ends:
        return f"{board.unexpected_ends} peers ended by themselves"
    return None if board.totals.tokens else "nothing was trained"


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
