"""Comparing views again and again with one other peer, calmly or in a hurry.

Mostly there is nothing to say, and a comparison now and then suffices. News is passed on at once to somebody at
random, so that it spreads like an epidemic. And whoever meets a peer that it believed gone has probably come out of
a partition: it looks up the others it believes gone, who are told, and refute it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from random import Random

import trio

from iota_p2p.membership.exchange import Found, ViewExchange
from iota_p2p.membership.member import Member
from iota_p2p.membership.watcher import Watcher
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError, RemoteProtocolError

EXCHANGE_TIMEOUT_S = 5.0
# Where calm comparisons go: to those we watch (a hung peer is found), to anybody (news spreads), to those believed
# gone (partitions heal).
_WATCHED, _ANYBODY = 0.5, 0.75
# Healing goes on past so many peers in a row that really are gone.
MAX_MISSES = 5

_log = logging.getLogger(__name__)


class Pace(Enum):
    """How long to wait before the next comparison, in seconds."""

    CALM = 30.0  # a comparison of equal views costs 150 bytes and half a millisecond
    HOT = 1.0  # an epidemic among 200 peers takes about 8 rounds
    HEALING = 0.1  # a hundred peers are told within ten seconds even if nobody else tells them


@dataclass(slots=True)
class Comparer:
    """Decides when to exchange views, and with whom."""

    member: Member
    exchange: ViewExchange
    watcher: Watcher
    _pace: Pace = Pace.CALM
    _misses: int = 0
    _woken: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        """Hear of what others brought us when they asked, and of those who are back.

        Perhaps it was we who were cut off: then whomever we ask next tells us that we are believed gone.
        """
        self.exchange.on_found = self._wake
        self.exchange.intake.on_returned = partial(self._wake, Found.NEWS)

    async def run(self) -> None:
        """Compare until cancelled."""
        rng = self.member.rng("exchanges")
        while True:
            if self._pace is Pace.CALM:
                with trio.move_on_after(self._pause_s(rng)):
                    await self._woken.wait()
            if self._pace is not Pace.CALM:
                await trio.sleep(self._pause_s(rng))  # also when woken: who woke us may still change our view
            self._woken = trio.Event()
            self.member.view.forget_expired(self.member.clock())
            self.member.note_changes()
            partner = self._choose_partner(rng)
            before, self._pace = self._pace, Pace.CALM
            if partner is not None:
                after = await self._compare_with(partner, before)
                self._pace = min(self._pace, after, key=lambda pace: pace.value)  # others may have woken us meanwhile

    def _pause_s(self, rng: Random) -> float:
        return self._pace.value * rng.uniform(0.7, 1.3)

    def _wake(self, found: Found) -> None:
        wanted = Pace.HEALING if found is Found.RETURNED else Pace.HOT
        if found is Found.RETURNED:
            self._misses = 0
        self._pace = min(self._pace, wanted, key=lambda pace: pace.value)
        self._woken.set()

    async def _compare_with(self, peer_id: PeerId, pace: Pace) -> Pace:
        """Exchange with one peer and return the pace from then on. A live one that is silent is doubted."""
        was_live = self.member.view.is_live(peer_id)
        try:
            with trio.fail_after(EXCHANGE_TIMEOUT_S):
                news = await self.exchange.run_with(peer_id)
        except (trio.TooSlowError, PeerUnavailableError):
            await self.watcher.doubt(peer_id)
            if pace is not Pace.HEALING:
                return Pace.CALM
            self._misses += 1
            return Pace.HEALING if self._misses <= MAX_MISSES else Pace.HOT
        except (RefusedError, RemoteProtocolError) as error:
            _log.info("exchange refused", extra={"peer": peer_id, "reason": str(error)})
            return Pace.CALM
        if not was_live:
            self._misses = 0
            return Pace.HEALING
        if pace is Pace.HEALING and self.member.view.gone():
            return Pace.HEALING
        return Pace.HOT if news else Pace.CALM

    def _choose_partner(self, rng: Random) -> PeerId | None:
        me, view = self.member.identity.peer_id, self.member.view
        kind = rng.random()
        choices: Sequence[PeerId] = ()
        if self._pace is Pace.HEALING or (self._pace is Pace.CALM and kind >= _ANYBODY):
            choices = [peer_id for peer_id in view.gone() if peer_id != me]
        elif self._pace is Pace.CALM and kind < _WATCHED:
            choices = self.watcher.watched
        choices = choices or [peer_id for peer_id in view.live() if peer_id != me]
        return rng.choice(choices) if choices else None
