"""`StageGate`: lets pieces of work through to a stage, or keeps them waiting while its replicas merge.

Between freezing what an epoch came to and installing the next one's weights nothing may change the stage: its work
log would no longer replay from the epoch's first weights. Those who wait are callers of microbatches under way; they
hold a slot each, so that they are few, and each has a caller with a patience of its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class StageGate:
    """The gate of one stage; one task at a time closes it.

    Attributes:
        was_shut_s: for how long it has been closed in all, up to its last opening.
    """

    def __init__(self) -> None:
        self._open = trio.Event()
        self._open.set()
        self._inside = 0
        self._left = trio.Event()
        self._shut_since_s: float | None = None
        self.was_shut_s = 0.0

    @property
    def shut_for_s(self) -> float:
        """For how long it has been closed; 0 while it is open."""
        return 0.0 if self._shut_since_s is None else trio.current_time() - self._shut_since_s

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Do one piece of work inside, as soon as the gate is open."""
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._left.set()

    @asynccontextmanager
    async def shut(self) -> AsyncIterator[None]:
        """Close the gate for as long as the context lasts, which begins when everybody inside has left."""
        self._open = trio.Event()
        self._shut_since_s = trio.current_time()
        try:
            while self._inside:
                self._left = trio.Event()
                await self._left.wait()
            yield
        finally:
            self.was_shut_s += self.shut_for_s
            self._shut_since_s = None
            self._open.set()
