"""Which epoch it is, from the progress that sources publish: the shell of the close machine (`close_machine`).

A source says every few seconds how many of its microbatches came home. All count by the same rule, and whoever sees
the end of an epoch first says so with what it counted, for those who missed some of it. Microbatches under way go on
across the change.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import floor

import trio

from iota_p2p.membership.member import Member, open_recent
from iota_p2p.training.source import Done, Source
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.close_machine import (
    LOOK_EVERY_S,
    Closed,
    CloseRules,
    Closing,
    Effect,
    Event,
    Live,
    Progressed,
    Publish,
    Tick,
    TurnOver,
    step,
)
from iota_p2p_protocols.epoch_close import Close, validate_epoch_close
from iota_p2p_protocols.errors import PeerUnavailableError
from iota_p2p_protocols.ids import EPOCHS, PROGRESS, TopicSpec
from iota_p2p_protocols.message import open_gossip, seal_message
from iota_p2p_protocols.progress import Progress, validate_progress_gossip

PUBLISH_EVERY_S = 2.0  # with one stage each, half of what the topic allows
LIFETIME_S = 600

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class EpochClock:
    """Publishes our progress, hears the others', and turns the epoch over.

    Attributes:
        member: who we are and who else is there.
        share: whose epoch it is.
        source: whose progress we publish.
        turn_over: moves all of our stages to an epoch.
    """

    member: Member
    share: WorkShare
    source: Source
    turn_over: Callable[[int], Awaitable[None]]
    _closing: Closing = field(init=False)
    _sequence: int = 0

    def __post_init__(self) -> None:
        """Begin to count."""
        rules = self.share.spec.epoch
        self._closing = Closing(
            self.member.identity.peer_id,
            CloseRules(self.share.terms.run_id, rules.target_microbatches, float(rules.deadline_s)),
            self.share.epoch,
            self.member.clock(),
        )

    async def run(self) -> None:
        """Keep the time until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, PROGRESS, self._hear_progress)
            nursery.start_soon(self._listen, EPOCHS, self._hear_close)
            nursery.start_soon(self._publish_progress)
            nursery.start_soon(self._look)

    async def _listen(self, topic: TopicSpec, validate: Callable[[bytes, PeerId], Event]) -> None:
        async with self.member.network.gossip.subscribe(topic, validate) as events:
            async for event in events:
                await self._take(event)

    def _hear_progress(self, data: bytes, author: PeerId) -> Event:
        run_id, now_s = self.share.terms.run_id, self.member.clock()
        claimed = open_gossip(data, author, Progress, run_id=run_id, now_s=now_s, opener=open_recent)
        # Those who are ahead are heard, too, however far; opening it again costs nothing.
        epoch = max(claimed.payload.epoch, self.share.epoch + 1)
        opened = validate_progress_gossip(data, author, run_id=run_id, epoch=epoch, now_s=now_s, opener=open_recent)
        return Progressed(opened)

    def _hear_close(self, data: bytes, author: PeerId) -> Event:
        close: Close = validate_epoch_close(
            data,
            author,
            run_id=self.share.terms.run_id,
            epoch=self.share.epoch,
            now_s=self.member.clock(),
            opener=open_recent,
        )
        return Closed(close)

    async def _look(self) -> None:
        # Half a look off the beat of publishing: two things of one moment would come in an order that chance decides.
        await trio.sleep(LOOK_EVERY_S / 2)
        while True:
            await trio.sleep(LOOK_EVERY_S)
            await self._take(Live(frozenset(self.share.routes.replicas(0))))
            await self._take(Tick())

    async def _take(self, event: Event) -> None:
        self._closing, effects = step(self._closing, event, self.member.clock())
        await self._do(effects)

    async def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, TurnOver):
                _log.info("epoch over", extra={"epoch": self.share.epoch, "reason": effect.reason})
                await self.turn_over(effect.epoch)
            elif isinstance(effect, Publish):
                await self._publish(EPOCHS, seal_message(effect.close, self.member.identity))

    async def _publish(self, topic: TopicSpec, data: bytes) -> None:
        try:
            await self.member.network.gossip.publish(topic, data)
        except PeerUnavailableError as error:
            _log.debug("not published", extra={"topic": topic.name, "reason": str(error)})

    async def _publish_progress(self) -> None:
        """Publish our own progress, and count it ourselves.

        Also when nothing is done yet: whoever missed the epoch's beginning hears of it by this alone, and while it is
        the only holder of a stage, nothing gets done before it has.
        """
        while True:
            await trio.sleep(PUBLISH_EVERY_S)
            if 0 not in self.share.stages:
                continue
            done = self.source.done.get(self.share.epoch, Done(0, 0))
            now_s = self.member.clock()
            self._sequence = max(self._sequence + 1, floor(now_s * 1000))
            progress = Progress(
                run_id=self.share.terms.run_id,
                sequence=self._sequence,
                issued_s=floor(now_s),
                expires_s=floor(now_s) + LIFETIME_S,
                epoch=self.share.epoch,
                stage=0,
                num_microbatches=done.num_microbatches,
                num_tokens=done.num_microbatches * self.share.tokens_per_microbatch,
                loss_sum_micronats=done.loss_sum_micronats,
            )
            data = seal_message(progress, self.member.identity)
            await self._take(Progressed(open_recent(data, Progress)))
            await self._publish(PROGRESS, data)
