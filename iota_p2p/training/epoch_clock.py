"""Which epoch it is, from the progress that sources publish.

A source says every few seconds how many of its microbatches came home. When all together have reached the spec's
target, or the deadline has passed, everybody who sees it goes on to the next epoch; who missed it, even several times,
follows when most of the sources it knows are ahead. These are claims: a source that boasts can close an epoch early,
and nothing else. Microbatches under way go on across the change.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import floor
from statistics import median_low

import trio

from iota_p2p.membership.member import Member, open_recent
from iota_p2p.training.source import Source
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import IgnoreError, PeerUnavailableError
from iota_p2p_protocols.ids import PROGRESS
from iota_p2p_protocols.message import open_gossip, seal_message
from iota_p2p_protocols.progress import Progress, ProgressBoard, validate_progress_gossip

PUBLISH_EVERY_S = 2.0  # with one stage each, half of what the topic allows
LOOK_EVERY_S = 0.5
LIFETIME_S = 600
# No source counts for more than so many times the middle one: a boast may make an epoch shorter, but not so short
# that microbatches under way outlive the two epochs in which they are of use.
MAX_BOAST = 4

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
    board: ProgressBoard = field(default_factory=ProgressBoard)
    _began_s: float = 0.0
    _sequence: int = 0
    _latest: dict[PeerId, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Keep the time until cancelled."""
        self._began_s = trio.current_time()
        async with (
            self.member.network.gossip.subscribe(PROGRESS, self._hear) as heard,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._publish)
            nursery.start_soon(self._look)
            async for _ in heard:
                pass

    def _hear(self, data: bytes, author: PeerId) -> None:
        run_id, now_s = self.share.terms.run_id, self.member.clock()
        claimed = open_gossip(data, author, Progress, run_id=run_id, now_s=now_s, opener=open_recent)
        # Those who are ahead are heard, too, however far; opening it again costs nothing.
        epoch = max(claimed.payload.epoch, self.share.epoch + 1)
        self._take(validate_progress_gossip(data, author, run_id=run_id, epoch=epoch, now_s=now_s, opener=open_recent))

    def _take(self, progress: Verified[Progress]) -> None:
        if progress.payload.epoch <= self.share.epoch + 1:
            self.board.receive(progress)
        if self.member.view.is_live(progress.signer):  # which bounds how many there are
            self._latest[progress.signer] = progress.payload.epoch

    async def _look(self) -> None:
        await trio.sleep(LOOK_EVERY_S / 2)  # never when we publish: which came first would be left to chance
        while True:
            await trio.sleep(LOOK_EVERY_S)
            reason = self._reason_to_turn()
            if reason:
                _log.info("epoch over", extra={"epoch": self.share.epoch, "reason": reason})
                self._began_s = trio.current_time()
                await self.turn_over(self.share.epoch + 1)
                self.board.forget_before(self.share.epoch)

    def _reason_to_turn(self) -> str:
        epoch, rules = self.share.epoch, self.share.spec.epoch
        done = self._done(epoch)
        if done >= rules.target_microbatches:
            return f"{done} of {rules.target_microbatches} microbatches"
        if done and trio.current_time() >= self._began_s + rules.deadline_s:
            return f"deadline of {rules.deadline_s} s"
        self._latest = {peer_id: of for peer_id, of in self._latest.items() if self.member.view.is_live(peer_id)}
        ahead = sum(of > epoch for of in self._latest.values())
        if 2 * ahead > len(self._latest):
            return f"{ahead} of {len(self._latest)} sources are ahead"
        return ""

    def _done(self, epoch: int) -> int:
        """Return how many microbatches the live sources have done, boasts cut down."""
        sources = sorted(self.share.routes.replicas(0))
        counts = [self.board.done_by(peer_id, epoch, 0) for peer_id in sources]
        most = MAX_BOAST * (median_low(counts) + 1) if counts else 0
        return sum(counts) if len(counts) == 1 else sum(min(count, most) for count in counts)

    async def _publish(self) -> None:
        """Publish our own progress, and count it ourselves."""
        while True:
            await trio.sleep(PUBLISH_EVERY_S)
            done = self.source.done.get(self.share.epoch)
            if done is None or 0 not in self.share.stages:
                continue
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
            try:
                self._take(open_recent(data, Progress))
                await self.member.network.gossip.publish(PROGRESS, data)
            except (IgnoreError, PeerUnavailableError) as error:
                _log.debug("progress not published", extra={"reason": str(error)})
