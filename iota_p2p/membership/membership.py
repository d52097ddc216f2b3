"""`Membership`: everything that keeps a member's view true, in one place that can be run.

Gossip spreads news, exchanges with one other peer at a time repair what gossip missed, and watching finds the dead.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from iota_p2p.membership.announcer import Announcer, SelfDescription
from iota_p2p.membership.comparer import Comparer
from iota_p2p.membership.exchange import ViewExchange
from iota_p2p.membership.intake import Intake
from iota_p2p.membership.member import Member
from iota_p2p.membership.watcher import Watcher
from iota_p2p_protocols.ids import ABSENCES, ADVERTS


@dataclass(frozen=True, slots=True)
class Membership:
    """A member with all its parts; build it with `join`."""

    member: Member
    announcer: Announcer
    exchange: ViewExchange
    watcher: Watcher
    comparer: Comparer
    intake: Intake

    @classmethod
    def of(cls, member: Member, description: SelfDescription) -> "Membership":
        """Put the parts together."""
        intake = Intake(member)
        exchange = ViewExchange(member, intake)
        watcher = Watcher(member, exchange.run_with)
        return cls(
            member, Announcer(member, description), exchange, watcher, Comparer(member, exchange, watcher), intake
        )

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
            nursery.start_soon(self.comparer.run)
            task_status.started()


async def _drain(messages: AsyncIterator[object]) -> None:
    """Take messages as they come; the topic's validation has already put them into the view."""
    async for _ in messages:
        pass
