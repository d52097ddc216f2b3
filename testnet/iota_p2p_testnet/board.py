"""What a testnet knows of its peers: a fold over their events, read by the views and the summary. Pure.

Every peer counts from zero in each life of its process; the board adds its lives up, so that a kill loses no count.
Times are seconds since the testnet began, as the caller's clock has them.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from iota_p2p_testnet.events import (
    Address,
    BoundaryStatus,
    Merged,
    Note,
    PeerEvent,
    Recovered,
    Replay,
    Result,
    Scores,
    StageStatus,
    Starting,
    Status,
)
from iota_p2p_testnet.history import History, Recovery
from iota_p2p_testnet.merges import Merges
from iota_p2p_testnet.outages import Outages
from iota_p2p_testnet.payments import Payments
from iota_p2p_testnet.peer_row import PeerRow, Totals
from iota_p2p_testnet.scoreboard import Scoreboard

# Happenings kept for views that look late; a chaotic hour has fewer.
_KEPT_HAPPENINGS = 1000


@dataclass(frozen=True, slots=True)
class Happening:
    """A change that matters, in words."""

    time_s: float
    text: str


@dataclass(slots=True)
class Board:
    """All peers of a testnet, what happened, and how the training went."""

    rows: Mapping[int, PeerRow]
    num_stages: int
    run_id: str
    history: History = field(default_factory=History)
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=_KEPT_HAPPENINGS))
    num_happenings: int = 0
    recoveries: list[Recovery] = field(default_factory=list)
    outages: Outages = field(default_factory=Outages)
    merges: Merges = field(default_factory=Merges)
    scoreboard: Scoreboard = field(default_factory=Scoreboard)
    payments: Payments = field(default_factory=Payments)
    unexpected_ends: int = 0
    first_epoch: int | None = None
    epoch: int = 0
    boundary: BoundaryStatus | None = None

    @classmethod
    def of(cls, num_peers: int, num_stages: int, run_id: str) -> "Board":
        """Return the board of a testnet that has not started."""
        rows = {number: PeerRow(number) for number in range(1, num_peers + 1)}
        return cls(rows, num_stages, run_id)

    @property
    def totals(self) -> Totals:
        """Counters of all lives of all peers."""
        return sum((row.totals for row in self.rows.values()), Totals())

    @property
    def alive(self) -> Sequence[int]:
        """The peers whose process should be running."""
        return [row.number for row in self.rows.values() if row.is_up]

    def holders(self, stage: int) -> Sequence[tuple[PeerRow, StageStatus]]:
        """Return the peers that hold a stage, serving or fetching."""
        return [(row, held) for row in self.rows.values() for held in row.stages if held.stage == stage]

    def serving(self, stage: int) -> Sequence[int]:
        """Return the peers that serve a stage."""
        return [row.number for row, held in self.holders(stage) if held.serving]

    def num_closed_for_most(self) -> int:
        """Return how many epochs have closed, since we began, for more than half of the live peers."""
        epochs = sorted(row.status.epoch for row in self.rows.values() if row.status is not None and row.is_up)
        return epochs[(len(epochs) - 1) // 2] - (self.first_epoch or 0) if epochs else 0

    @property
    def num_closed(self) -> int:
        """How many epochs have closed, since we began, for whoever is furthest."""
        return self.epoch - (self.first_epoch or 0)

    def say(self, now_s: float, text: str) -> None:
        """Note a happening."""
        self.happenings.append(Happening(now_s, text))
        self.num_happenings += 1

    def starts(self, number: int, now_s: float) -> None:
        """Note that a peer's process is being started, for the first time or again."""
        row = self.rows[number]
        row.earlier, row.status, row.state = row.totals, None, "starting"
        row.lives += 1
        if row.lives > 1:
            self.say(now_s, f"peer {number} is started again")

    def turns_bad(self, number: int, adversary: str) -> None:
        """Note that a peer is going to cheat."""
        self.rows[number].adversary = adversary
        self.merges.cheats.add(number)
        self.say(0.0, f"peer {number} cheats: {adversary}")

    def kills(self, number: int, now_s: float, back_s: float | None) -> None:
        """Note that a peer is killed."""
        self.rows[number].state = "killed"
        self.recoveries.append(Recovery(number, now_s, self.totals.tokens, self.history.rate_before_kill()))
        self.say(now_s, f"peer {number} killed, " + ("for good" if back_s is None else f"back in {back_s:g} s"))
        self._look_at_outages(now_s)

    def ends(self, number: int, now_s: float, how: str) -> None:
        """Note that a peer's process ended by itself, which it should not."""
        self.rows[number].state = "ended"
        self.unexpected_ends += 1
        self.say(now_s, f"peer {number} ended by itself: {how}")
        self._look_at_outages(now_s)

    def stops(self, number: int) -> None:
        """Note that a peer's process ended because the testnet stops."""
        self.rows[number].state = "stopped"

    def apply(self, number: int, event: PeerEvent, now_s: float) -> None:
        """Fold in what a peer said."""
        row = self.rows[number]
        match event:
            case Starting():
                row.peer_id = event.peer_id
            case Address():
                if row.state == "starting":
                    row.state = "running"
                    self.say(now_s, f"peer {number} is up: {row.peer_id}")
                row.address = event.address
            case Status():
                self._apply_status(row, event, now_s)
            case Recovered():
                self.outages.recovered(event.stage, event.kind, event.num_steps)
                source = f"stage {event.stage} from {event.kind} at step {event.num_steps}"
                self.say(now_s, f"peer {number} recovered {source}")
            case Merged():
                self._apply_merged(row, event, now_s)
            case Scores() | Replay() | Result():
                self._apply_scores(row, event, now_s)
            case Note():
                pass  # it is in the peer's log

    def name_of(self, peer_id: str) -> str:
        """Name a peer for people: its number, or its id if it is none of ours."""
        numbers = [row.number for row in self.rows.values() if row.peer_id == peer_id]
        return f"peer {numbers[0]}" if numbers else peer_id

    def tick(self, now_s: float) -> None:
        """Take a sample of the training; call it about once per second."""
        tokens = self.totals.tokens
        self.history.tick(now_s, tokens)
        for recovery in self.recoveries:
            recovery.tick(now_s, tokens)

    def _apply_merged(self, row: PeerRow, event: Merged, now_s: float) -> None:
        merge = self.merges.add(row.number, event)
        if event.how == "merged" and len(merge.merged) == 1 and len(event.members) > 1:
            lost = f", {event.lost_shards} of {event.shards} shards lost" if event.lost_shards else ""
            faults = f", {event.faults} members proved to lie" if event.faults else ""
            what = f"stage {event.stage} merged epoch {event.epoch}: {len(event.members)} members"
            self.say(now_s, f"{what} in {event.seconds:.2f} s{lost}{faults}")
            for peer_id in event.passed_over:
                self.say(now_s, f"{self.name_of(peer_id)} was to convene for it and was passed over")
        for peer_id in event.named:
            if self.merges.name(event.epoch, event.stage, peer_id):
                self.say(now_s, f"{self.name_of(peer_id)} is proved to have cheated in epoch {event.epoch}")
        if event.how == "fetched":
            self.say(now_s, f"peer {row.number} took stage {event.stage} after epoch {event.epoch} from others")

    def _apply_scores(self, row: PeerRow, event: Scores | Replay | Result, now_s: float) -> None:
        if isinstance(event, Scores):
            self.scoreboard.score(row.peer_id, event)
            for peer_id, reason in event.flagged.items():
                name = self.name_of(peer_id)
                self.say(now_s, f"peer {row.number} scored {name} down in epoch {event.epoch}: {reason}")
        elif isinstance(event, Replay):
            if self.scoreboard.replay(row.peer_id, event):
                work = f"stage {event.stage} of {self.name_of(event.peer)} in epoch {event.epoch}"
                self.say(now_s, f"peer {row.number} replayed {work}: {event.reason}")
        elif self.scoreboard.certify(event):
            votes, paid = len(event.validators), len(event.payouts)
            self.say(now_s, f"epoch {event.epoch}: {votes} validators certify payouts to {paid} peers")

    def _apply_status(self, row: PeerRow, status: Status, now_s: float) -> None:
        before, row.status = row.status, status
        self.boundary = status.boundary or self.boundary
        gained = status.tokens - (before.tokens if before is not None else 0)
        self.history.train(now_s, self.totals.tokens, gained, status.loss_nats)
        if status.val_loss_nats is not None and status.val_loss_nats != row.last_val:
            row.last_val = status.val_loss_nats
            self.history.validate(status.val_loss_nats)
        self._compare_stages(row.number, before, status, now_s)
        self._look_at_outages(now_s)
        if self.first_epoch is None:
            self.first_epoch = self.epoch = status.epoch
        if status.epoch > self.epoch:
            self.epoch = status.epoch
            self.say(now_s, f"epoch {status.epoch} begins")

    def _compare_stages(self, number: int, before: Status | None, status: Status, now_s: float) -> None:
        old = {held.stage: held.serving for held in before.stages} if before is not None else {}
        new = {held.stage: held.serving for held in status.stages}
        for stage, serving in new.items():
            if serving and not old.get(stage):
                self.say(now_s, f"peer {number} serves stage {stage}")
                self._rejoined(number, now_s)
            elif not serving and stage not in old:
                self.say(now_s, f"peer {number} fetches stage {stage}")
        for stage in old.keys() - new.keys():
            self.say(now_s, f"peer {number} gives up stage {stage}")

    def _look_at_outages(self, now_s: float) -> None:
        served: dict[int, int] = {}
        for row in self.rows.values():
            for held in row.stages:
                if held.serving:
                    served[held.stage] = max(held.steps, served.get(held.stage, 0))
        for outage in self.outages.look(served, now_s):
            if outage.seconds is None:
                self.say(now_s, f"nobody serves stage {outage.stage} any more")
            else:
                self.say(now_s, f"stage {outage.stage} is served again after {outage.seconds:.1f} s")

    def _rejoined(self, number: int, now_s: float) -> None:
        for recovery in reversed(self.recoveries):
            if recovery.peer == number:
                if recovery.serving_s is None:
                    recovery.serving_s = now_s - recovery.killed_s
                return
