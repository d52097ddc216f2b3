"""Which epoch it is, from the progress that sources publish.

A source says every few seconds how many of its microbatches came home. When all together have reached the spec's
target, or the deadline has passed, everybody who sees it goes on to the next epoch; who missed it follows when
sources that it knows are already there. These are claims: a source that boasts can close an epoch early, and nothing
else. Microbatches under way go on across the change.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import floor

import trio

from iota_p2p.membership.member import Member, open_recent
from iota_p2p.training.source import Source
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import IgnoreError, PeerUnavailableError
from iota_p2p_protocols.ids import PROGRESS
from iota_p2p_protocols.message import seal_message
from iota_p2p_protocols.progress import Progress, ProgressBoard, validate_progress_gossip

PUBLISH_EVERY_S = 2.0  # with one stage each, half of what the topic allows
LOOK_EVERY_S = 0.5
LIFETIME_S = 600
# So many sources, or all there are, must be in the next epoch before we follow them into it.
MIN_AHEAD = 2

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
    _ahead: Counter[int] = field(default_factory=Counter)
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
        progress = validate_progress_gossip(
            data,
            author,
            run_id=self.share.terms.run_id,
            epoch=self.share.epoch + 1,  # those who are one ahead are heard, too
            now_s=self.member.clock(),
            opener=open_recent,
        )
        self._take(progress)

    def _take(self, progress: Verified[Progress]) -> None:
        self.board.receive(progress)
        self._latest[progress.signer] = progress.payload.epoch

    async def _look(self) -> None:
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
        done = self.board.totals(epoch, 0).num_microbatches
        if done >= rules.target_microbatches:
            return f"{done} of {rules.target_microbatches} microbatches"
        if done and trio.current_time() >= self._began_s + rules.deadline_s:
            return f"deadline of {rules.deadline_s} s"
        sources = [peer_id for peer_id in self._latest if self.member.view.is_live(peer_id)]
        ahead = sum(self._latest[peer_id] > epoch for peer_id in sources)
        if ahead and ahead >= min(MIN_AHEAD, len(sources)):
            return f"{ahead} of {len(sources)} sources are ahead"
        return ""

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
