"""`Recovery`: brings back a stage that nobody serves, from whoever kept it: our own disk, or custodians elsewhere."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import trio

from iota_p2p.custody.custodian import Custodian
from iota_p2p.training.stage_state import StageState
from iota_p2p.training.state_fetch import StateFetch
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.custody import NUM_CANDIDATES, custodians, merit, rank
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.state_manifest import Listing
from iota_p2p_protocols.view import View

# For a custodian to say what it has: a manifest lies ready, so this is a round trip on a loaded machine.
ASK_PATIENCE_S = 4.0

Kind = Literal["custodians", "own-disk", "seed"]
_FAILURES = (PeerUnavailableError, RefusedError, RemoteProtocolError, trio.TooSlowError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A stage that was brought back.

    Attributes:
        stage: which one.
        kind: where its state came from; `seed` if nobody had any and training it begins anew.
        seconds: since we last saw somebody serve it; without that, since we began to look for a state.
        epoch: in which the state was taken.
        num_steps: inner steps it has behind it.
    """

    stage: int
    kind: Kind
    seconds: float
    epoch: int
    num_steps: int


@dataclass(slots=True)
class Recovery:
    """Recovers the stages that we take.

    Attributes:
        run_id: our run.
        view: who is there.
        custodian: what we keep ourselves.
        saved: reads a stage's state from our own disk.
        fetching: returns a new fetch of a stage.
        served: returns who serves a stage, ourselves left out.
        on_recovered: told of every stage brought back.
    """

    run_id: bytes
    view: View
    custodian: Custodian
    saved: Callable[[int], Awaitable[StageState | None]]
    fetching: Callable[[int], StateFetch]
    served: Callable[[int], Sequence[PeerId]]
    on_recovered: Callable[[Recovered], None] = lambda _: None
    _served_s: dict[int, float] = field(default_factory=dict)  # when we last saw so

    def look(self, num_stages: int, held: Sequence[int]) -> None:
        """Note which stages somebody serves; to be called every second or so."""
        for stage in range(num_stages):
            if stage in held or self.served(stage):
                self._served_s[stage] = trio.current_time()

    def custodians_of(self, stage: int, holders: Sequence[PeerId]) -> Sequence[PeerId]:
        """Return who keeps a stage that others hold, and may have chunks of it, too."""
        return [p for p in custodians(self.run_id, stage, self.view.live(), holders) if p != self.view.me]

    async def state_of(self, stage: int) -> StageState | None:
        """Return the best state that anybody has of a stage that nobody serves; None if it is to begin anew."""
        began_s = self._served_s.get(stage, trio.current_time())
        own = await self.saved(stage)
        better = await self._kept_elsewhere(stage, own)
        state = better or own
        kind: Kind = "custodians" if better else "own-disk" if own else "seed"
        if state is not None or stage in self._served_s:
            epoch, num_steps = (0, 0) if state is None else (state.epoch, state.num_steps)
            recovered = Recovered(stage, kind, trio.current_time() - began_s, epoch, num_steps)
            _log.info("stage recovered", extra={"stage": stage, "kind": kind, "num_steps": num_steps})
            self.on_recovered(recovered)
        return state

    async def _kept_elsewhere(self, stage: int, own: StageState | None) -> StageState | None:
        """Return a state that custodians keep, if there is one better than our own."""
        fetch = self.fetching(stage)
        offers = await self._offers(stage, fetch)
        by_merit = sorted(offers.values(), key=lambda offer: merit(offer[0].state), reverse=True)
        for listing, sources in by_merit:
            claims = listing.state
            if own is not None and (claims.epoch, claims.num_steps) <= (own.epoch, own.num_steps):
                continue
            others = [peer_id for peer_id in self._candidates(stage) if peer_id not in sources]
            try:
                return await fetch.fetch(listing, [*sources, *others])
            except _FAILURES as error:
                _log.warning("kept state not fetched", extra={"stage": stage, "reason": str(error) or "too slow"})
        return None

    async def _offers(self, stage: int, fetch: StateFetch) -> dict[Digest, tuple[Listing, list[PeerId]]]:
        """Ask those who should keep the stage what they have; return each state with those who have it."""
        offers: dict[Digest, tuple[Listing, list[PeerId]]] = {}
        mine = self.custodian.best(stage)
        if mine is not None:
            offers[mine.name] = (mine, [])

        async def ask(peer_id: PeerId) -> None:
            try:
                with trio.fail_after(ASK_PATIENCE_S):
                    listing = await fetch.ask(peer_id, kept=True)
            except _FAILURES as error:
                _log.debug("nothing kept", extra={"stage": stage, "peer": peer_id, "reason": str(error)})
                return
            offers.setdefault(listing.name, (listing, []))[1].append(peer_id)

        async with trio.open_nursery() as nursery:
            for peer_id in self._candidates(stage):
                nursery.start_soon(ask, peer_id)
        for _, sources in offers.values():
            sources.sort()  # whoever answered first: one seed gives one order
        return offers

    def _candidates(self, stage: int) -> Sequence[PeerId]:
        """Return who is asked: those whose turn it is to keep the stage, and those who come next."""
        return [p for p in rank(self.run_id, stage, self.view.live()) if p != self.view.me][: 2 * NUM_CANDIDATES]
