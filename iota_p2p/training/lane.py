"""The compute lane: one device, one piece of work at a time, backward first.

A backward frees a held graph and a slot all the way up the pipeline; a forward takes one. So whoever waits with a
backward goes before everybody who waits with a forward, and within a kind the order is that of arrival.
"""

import heapq
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import TypeVar

import trio

T = TypeVar("T")


class Priority(IntEnum):
    """What goes first; the lower value wins."""

    BACKWARD = 0
    FORWARD = 1
    BACKGROUND = 2  # evaluation, saving: whenever nothing that others wait for is there, and a small share always


# On a busy peer a forward or backward is always waiting: one turn in so many goes to the background all the same.
# A token of text waits for a turn at every stage, so a person sees this number; 16 made four stages on one slow peer
# take 4 s a token. One sequence costs 2 % of the turns before it; a whole held-out batch, were there always one, 14 %.
BACKGROUND_EVERY = 4


# Priority, order among equals, number of arrival (which differs, so that events are never compared), turn.
_Ticket = tuple[int, tuple[int, ...], int, trio.Event]


def _key(ticket: _Ticket) -> tuple[int, tuple[int, ...], int]:
    return ticket[:3]


class Lane(ABC):
    """One device's queue; bounded by the stages' slots, whose holders are the only ones who wait here."""

    def __init__(self) -> None:
        self._waiting: list[_Ticket] = []
        self._arrivals = 0
        self._busy = False
        self._turns_without_background = 0
        self.busy_s = 0.0  # time spent working, for the share of it that others waited
        # Processor time by the name of a priority, and of what was done beside the lane; none on a virtual clock.
        self.cpu_s: defaultdict[str, float] = defaultdict(float)

    @property
    def queue_length(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @abstractmethod
    async def run(self, priority: Priority, work: Callable[[], T], order: tuple[int, ...] = ()) -> T:
        """Do a piece of work when its turn comes; cancelling while it waits drops it, later lets it finish.

        `order` breaks ties among those of one priority that wait at the same time, before arrival does.
        """

    @abstractmethod
    async def beside(self, work: Callable[[], T]) -> T:
        """Do what takes long but not the device, such as writing to disk, without waiting for a turn."""

    @asynccontextmanager
    async def _turn(self, priority: Priority, order: tuple[int, ...]) -> AsyncIterator[None]:
        self._arrivals += 1
        turn = trio.Event()
        ticket = (int(priority), order, self._arrivals, turn)
        heapq.heappush(self._waiting, ticket)
        try:
            await self._arrived()
            self._next()
            await turn.wait()
        except trio.Cancelled:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
            elif turn.is_set():
                self._done()
            raise
        try:
            yield
        finally:
            self._done()

    async def _arrived(self) -> None:
        """Wait until everybody who arrives at this moment is in the queue; nothing to wait for in real time."""
        await trio.lowlevel.checkpoint()

    def _next(self) -> None:
        if not self._busy and self._waiting:
            self._busy = True
            self._take_next()[3].set()

    def _take_next(self) -> _Ticket:
        """Remove and return the ticket whose turn it is."""
        self._turns_without_background += 1
        if self._turns_without_background >= BACKGROUND_EVERY:
            background = min((t for t in self._waiting if t[0] == Priority.BACKGROUND), default=None, key=_key)
            if background is not None:
                self._turns_without_background = 0
                self._waiting.remove(background)
                heapq.heapify(self._waiting)
                return background
        ticket = heapq.heappop(self._waiting)
        if ticket[0] == Priority.BACKGROUND:
            self._turns_without_background = 0
        return ticket

    def _done(self) -> None:
        self._busy = False
        self._next()


class ThreadLane(Lane):
    """A lane whose work runs in a worker thread, so that the network goes on meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, priority: Priority, work: Callable[[], T], order: tuple[int, ...] = ()) -> T:
        """See `Lane.run`."""
        async with self._turn(priority, order):
            start_s = trio.current_time()
            try:
                return await self._in_thread(priority.name.lower(), work, self._limiter)
            finally:
                self.busy_s += trio.current_time() - start_s

    async def beside(self, work: Callable[[], T]) -> T:
        """See `Lane.beside`."""
        return await self._in_thread("beside", work, None)

    async def _in_thread(self, what: str, work: Callable[[], T], limiter: trio.CapacityLimiter | None) -> T:
        spent_s: list[float] = []

        def timed() -> T:
            began_s = time.thread_time()
            try:
                return work()
            finally:
                spent_s.append(time.thread_time() - began_s)

        try:
            return await trio.to_thread.run_sync(timed, limiter=limiter)
        finally:
            self.cpu_s[what] += sum(spent_s)  # here, where no other thread adds


class SimulatedLane(Lane):
    """A lane on the virtual clock: work is done at once and then takes `cost_s` of virtual time.

    Threads and trio's virtual clock do not mix. The order of everybody who arrives within `TICK_S` is that of
    `order`, not of trio's shuffled scheduler, so that one seed gives one result.
    """

    TICK_S = 1e-6

    def __init__(self, cost_s: Callable[[Priority], float]) -> None:
        super().__init__()
        self._cost_s = cost_s

    async def run(self, priority: Priority, work: Callable[[], T], order: tuple[int, ...] = ()) -> T:
        """See `Lane.run`."""
        async with self._turn(priority, order):
            result = work()
            cost_s = self._cost_s(priority)
            self.busy_s += cost_s
            with trio.CancelScope(shield=True):  # like a thread's: work that has begun is finished and returned
                await trio.sleep(cost_s)
            return result

    async def beside(self, work: Callable[[], T]) -> T:
        """See `Lane.beside`; takes no virtual time."""
        await trio.lowlevel.checkpoint()
        return work()

    async def _arrived(self) -> None:
        await trio.sleep(self.TICK_S)
