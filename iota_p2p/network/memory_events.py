"""The heart of the simulated network: what happens next, in an order that no scheduler can change.

Theory of operation. Tasks never act on the network directly: they `submit` events. One task runs the events, and
only when every other task is blocked, so all that was submitted since the last time (one *phase*) lies there
together. Events run ordered by (when, phase of submission, key), and a key is made of what the event *is*: peer
ids, topic, checksum. Two runs whose tasks do the same things therefore run the same events in the same order,
although trio shuffles its tasks.

Two events of one instant that wake tasks of the same host would leave it to trio which of them acts first. Between
such two the queue waits until everybody is blocked again; events that wake different hosts need no such pause.
"""

import heapq
import math
from collections.abc import Callable, Collection, Iterable
from typing import Generic, NamedTuple, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId

Key = tuple[str, ...]
T = TypeVar("T")


class TraceEvent(NamedTuple):
    """One thing that happened: at `time_s`, `what` from `source` to `target`, with a `detail`."""

    time_s: float
    what: str
    source: str
    target: str
    detail: str


class _Event(NamedTuple):
    due_s: float
    phase: int
    key: Key
    number: int  # of no meaning: unique, so that two events are never compared by what they do
    action: Callable[[], None]
    wakes: Collection[PeerId] | None


class EventQueue:
    """Events in time, run by one task."""

    def __init__(self, tick_s: float, trace: Callable[[TraceEvent], None] | None) -> None:
        self._tick_s = tick_s
        self._start_s = trio.current_time()
        self._heap: list[_Event] = []
        self._phase = 0
        self._number = 0
        self._sleep: trio.CancelScope | None = None  # while `run` sleeps
        self._trace = trace

    def now_s(self) -> float:
        """Return the time of trio's clock."""
        return trio.current_time()

    def due_s(self, delay_s: float, now_s: float | None = None) -> float:
        """Return when something is due that takes `delay_s`: rounded up to a tick, or in this instant if that is 0."""
        now_s = self.now_s() if now_s is None else now_s
        if delay_s <= 0:
            return now_s
        # The small term keeps a sum of floats that should be a whole tick from costing one more.
        ticks = math.ceil((now_s + delay_s - self._start_s) / self._tick_s - 1e-6)
        return max(now_s, self._start_s + ticks * self._tick_s)

    def submit(
        self, delay_s: float, key: Key, action: Callable[[], None], wakes: Collection[PeerId] | None = None
    ) -> None:
        """Run `action` in `delay_s`, as `due_s` rounds it; see `submit_at`."""
        self.submit_at(self.due_s(delay_s), key, action, wakes)

    def submit_at(
        self, due_s: float, key: Key, action: Callable[[], None], wakes: Collection[PeerId] | None = None
    ) -> None:
        """Run `action` at a time that `due_s` returned.

        `wakes` names the hosts whose tasks it can wake; None stands for any.
        """
        self._number += 1
        event = _Event(due_s, self._phase, key, self._number, action, wakes)
        heapq.heappush(self._heap, event)
        if self._sleep is not None and self._heap[0] is event:
            self._sleep.cancel()

    def note(self, what: str, source: str, target: str = "", detail: str = "") -> None:
        """Tell the trace what happens now; only events may call this, so that its order is fixed."""
        if self._trace is not None:
            self._trace(TraceEvent(self.now_s(), what, source, target, detail))

    async def run(self) -> None:
        """Run events as they fall due, until cancelled."""
        while True:
            if not self._is_due():
                await self._sleep_until_due()
            await wait_all_tasks_blocked()
            while self._is_due():
                self._phase += 1
                now_s = self.now_s()
                due = []
                # What the events submit belongs to the next phase, even if it is due at once.
                while self._heap and self._heap[0].due_s <= now_s:
                    due.append(heapq.heappop(self._heap))
                if await self._run_all(due):
                    await wait_all_tasks_blocked()  # most of those who were woken submit something at once

    def _is_due(self) -> bool:
        return bool(self._heap) and self._heap[0].due_s <= self.now_s()

    async def _sleep_until_due(self) -> None:
        next_s = self._heap[0].due_s if self._heap else math.inf
        with trio.CancelScope(deadline=next_s) as self._sleep:
            await trio.sleep_forever()
        self._sleep = None

    async def _run_all(self, due: Iterable[_Event]) -> bool:
        """Run the events of one phase, pausing before one that wakes a host woken since the last pause.

        Returns whether any host may have been woken since the last pause.
        """
        woken: set[PeerId] = set()
        anybody = False
        for event in due:
            if anybody or (woken if event.wakes is None else not woken.isdisjoint(event.wakes)):
                await wait_all_tasks_blocked()
                woken.clear()
            event.action()
            anybody = event.wakes is None
            woken.update(event.wakes or ())
        return anybody or bool(woken)


class Request(Generic[T]):
    """An answer that an event will give to a waiting task."""

    def __init__(self) -> None:
        self.abandoned = False  # the task was cancelled: do nothing for it
        self._done = trio.Event()
        self._answer: list[T] = []
        self._refusal = ""

    def answer(self, value: T) -> None:
        """Give the answer."""
        self._answer.append(value)
        self._done.set()

    def refuse(self, reason: str) -> None:
        """Give none, and say why."""
        self._refusal = reason
        self._done.set()

    async def wait(self) -> T:
        """Return the answer; raises PeerUnavailableError if it is refused."""
        try:
            await self._done.wait()
        finally:
            self.abandoned = True
        if not self._answer:
            raise PeerUnavailableError(self._refusal)
        return self._answer[0]
