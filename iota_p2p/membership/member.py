"""`Member`: what every part of membership works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

import trio

from iota_p2p.network.network import Network
from iota_p2p_crypto.envelope import domain_of
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.view import View

Clock = Callable[[], float]  # Unix seconds; a simulation passes a virtual one

# A message comes by gossip and again by exchange: its signature is checked once. Opening is a pure function of the
# bytes, so a cache cannot lie; failures are not kept. 2,048 envelopes of some 600 bytes, 9 KB at most: 18 MB.
open_recent = lru_cache(maxsize=2048)(open_signed)
domain_of_recent = lru_cache(maxsize=2048)(domain_of)


@dataclass(slots=True)
class Member:
    """A peer as a member of its run's network.

    Attributes:
        identity: who we are.
        run_id: the run whose members we list.
        clock: what time it is.
        network: how we reach the others.
        view: what we believe of them.
        seed: of all jitter and choices; fixed in simulations.
        changed: set, and replaced by a new one, when other peers become live or gone, or somebody doubts us.
    """

    identity: Identity
    run_id: bytes
    clock: Clock
    network: Network
    view: View
    seed: int
    changed: trio.Event = field(default_factory=trio.Event)
    _num_noted: int = field(default=0, init=False)
    _waiting: list[tuple[Callable[[], bool], trio.Event]] = field(default_factory=list, init=False)

    def rng(self, purpose: str) -> Random:
        """Return a random stream for one task, so that no task's draws depend on another's timing."""
        return Random(f"{self.seed}/{self.identity.peer_id}/{purpose}")  # noqa: S311 - jitter, no secret

    def note_changes(self) -> None:
        """Wake those who wait for what has become of the view; to be called by whoever fed it."""
        if self.view.num_changes == self._num_noted:
            return
        self._num_noted = self.view.num_changes
        self.changed.set()
        self.changed = trio.Event()
        for condition, event in self._waiting:
            if condition():
                event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the view holds; cheaper than to look at every change."""
        while not condition():
            waiting = (condition, trio.Event())
            self._waiting.append(waiting)
            try:
                await waiting[1].wait()
            finally:
                self._waiting.remove(waiting)
