"""`Membership`: everything that keeps a member's view true, in one place that can be run.

Gossip spreads news, exchanges with one other peer at a time repair what gossip missed, and watching finds the dead.
After an exchange that brought news the next one follows soon, so that a healed partition closes in a few rounds.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random

import trio

from iota_p2p.membership.announcer import Announcer, SelfDescription
from iota_p2p.membership.exchange import ViewExchange
from iota_p2p.membership.intake import Intake
from iota_p2p.membership.member import Member
from iota_p2p.membership.watcher import Watcher
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import ABSENCES, ADVERTS

# A comparison of equal views costs 150 bytes and half a millisecond; one in twenty seconds is nothing.
EXCHANGE_INTERVAL_S = 20.0
# After news: an epidemic among 200 peers takes about 8 rounds.
HOT_INTERVAL_S = 1.0
EXCHANGE_TIMEOUT_S = 5.0
# Where exchanges go: to those we watch (a hung peer is found), to anybody (news spreads), to those believed gone
# (partitions heal).
_WATCHED, _ANYBODY = 0.5, 0.75

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Membership:
    """A member with all its parts; build it with `join`."""

    member: Member
    announcer: Announcer
    exchange: ViewExchange
    watcher: Watcher
    intake: Intake

    @classmethod
    def of(cls, member: Member, description: SelfDescription) -> "Membership":
        """Put the parts together."""
        intake = Intake(member)
        exchange = ViewExchange(member, intake)
        return cls(member, Announcer(member, description), exchange, Watcher(member, exchange.run_with), intake)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled."""
        gossip = self.member.network.gossip
        async with (
            gossip.subscribe(ADVERTS, self.intake.hear_advert) as adverts,
            gossip.subscribe(ABSENCES, self.intake.hear_absence) as absences,
            trio.open_nursery() as nursery,
        ):
            await self.exchange.serve()
            nursery.start_soon(_drain, adverts)
            nursery.start_soon(_drain, absences)
            nursery.start_soon(self.announcer.run)
            nursery.start_soon(self.watcher.run)
            nursery.start_soon(self._compare_views)
            task_status.started()

    async def greet(self, peer_id: PeerId) -> None:
        """Exchange views with a peer we have just connected to; raises as `ViewExchange.run_with`."""
        await self.exchange.run_with(peer_id)

    async def _compare_views(self) -> None:
        rng = self.member.rng("exchanges")
        hot = False
        while True:
            interval_s = HOT_INTERVAL_S if hot else EXCHANGE_INTERVAL_S
            await trio.sleep(interval_s * rng.uniform(0.7, 1.3))
            self.member.view.forget_expired(self.member.clock())
            partner = self._choose_partner(rng, hot=hot)
            hot = partner is not None and await self._compare_with(partner)

    async def _compare_with(self, peer_id: PeerId) -> bool:
        """Exchange with one peer; return whether it brought news. A live one that is silent is doubted."""
        try:
            with trio.fail_after(EXCHANGE_TIMEOUT_S):
                return await self.exchange.run_with(peer_id) > 0
        except (trio.TooSlowError, PeerUnavailableError):
            if peer_id in self.watcher.watched:
                await self.watcher.doubt(peer_id)
        except (RefusedError, RemoteProtocolError) as error:
            _log.info("exchange refused", extra={"peer": peer_id, "reason": str(error)})
        return False

    def _choose_partner(self, rng: Random, *, hot: bool) -> PeerId | None:
        me, view = self.member.identity.peer_id, self.member.view
        live = [peer_id for peer_id in view.live() if peer_id != me]
        kind = rng.random()
        choices: Sequence[PeerId] = live
        if not hot and kind < _WATCHED:
            choices = self.watcher.watched or live
        elif not hot and kind >= _ANYBODY:
            choices = [peer_id for peer_id in view.known() if not view.is_live(peer_id)] or live
        return rng.choice(choices) if choices else None


async def _drain(messages: AsyncIterator[object]) -> None:
    """Take messages as they come; the topic's validation has already put them into the view."""
    async for _ in messages:
        pass
