"""Catching up: how a replica that was left out, diverged or has just come gets what the others agreed on."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from iota_p2p.merge.base_fetch import BaseFetch, best_base
from iota_p2p.merge.outer_step import OuterState
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId

# For whoever was left out: the others need about so long. Whoever waits in vain goes on alone, and is brought back by
# its next contribution's base.
CATCH_UP_S = 5.0
ASK_EVERY_S = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CatchingUp:
    """Asks a stage's replicas for what they began an epoch with until one has something of use.

    Attributes:
        fetch: how they are asked.
        replicas: returns who they are now.
        last_epoch: returns the latest epoch that there can be.
        patience_s: how long to ask.
    """

    fetch: BaseFetch
    replicas: Callable[[], Sequence[PeerId]]
    last_epoch: Callable[[], int]
    patience_s: float = CATCH_UP_S

    async def run(self, after: int) -> tuple[int, OuterState] | None:
        """Return a state of a later epoch than `after`, and which; None if nobody has one in time."""
        until_s = trio.current_time() + self.patience_s
        while self.replicas() and trio.current_time() < until_s:
            best = best_base(await self.fetch.ask(self.replicas()), self.last_epoch())
            if best is not None and best[0].epoch > after:
                try:
                    return best[0].epoch, await self.fetch.fetch(*best)
                except PeerUnavailableError as error:
                    _log.info("not caught up", extra={"stage": self.fetch.stage, "reason": str(error)})
            await trio.sleep(ASK_EVERY_S)
        return None
