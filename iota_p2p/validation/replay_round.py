"""One epoch's replays, as one of its validators does them: first what was dealt to it, then what others have found.

Of every peer dealt to it it reads the whole log, and does a segment again if its budget has room. What does not come
out it tells the others, and what others tell it does again itself: so all of them have seen the same, and all believe
only what they have seen.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.certified_starts import CertifiedStarts
from iota_p2p.validation.replay_findings import ReplayFindings
from iota_p2p.validation.replayer import Replayer
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.attribution import attribute, understating_tails
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.election import Electorate
from iota_p2p_protocols.scoring.evidence import JoinedEvidence
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.replay_draw import (
    Budget,
    Pair,
    deal_replays,
    draw_segment,
    mean_peer_work,
    work_of_pairs,
)
from iota_p2p_protocols.scoring.replay_finding import ReplayFinding
from iota_p2p_protocols.scoring.replay_verdict import MAX_CROSSING, Verdict
from iota_p2p_protocols.scoring.segments import Segment

LOOK_EVERY_S = 0.2
# Logs that a validator reads of an epoch: some megabytes each in the longest epochs.
MAX_LOOKS = 16

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ReplayRound:
    """The replays of one epoch.

    Attributes:
        bulletin: what was committed to.
        findings: what others found.
        starts: what stages began the epoch with.
        evidence: what records say was done.
        rules: the run's.
        voters: who may be elected, and is dealt to.
        seed: of the epoch after.
        replay_ppm: what is replayed of an epoch, of what a peer does in it on average.
        is_wanted: whether verdicts are still of use.
        on_verdict: told of every verdict.
    """

    bulletin: Bulletin
    findings: ReplayFindings
    starts: CertifiedStarts
    evidence: JoinedEvidence
    rules: ScoringRules
    voters: Electorate
    seed: bytes
    replay_ppm: int
    is_wanted: Callable[[], bool]
    on_verdict: Callable[[Pair, Verdict], None]
    _replayer: Replayer = field(init=False)
    _seen: dict[tuple[Pair, int | None], Verdict] = field(default_factory=dict)  # by segment; None is the log alone

    def __post_init__(self) -> None:
        """Be ready to ask."""
        self._replayer = Replayer(self.bulletin.member.network.streams, self.bulletin.share)

    async def run(self) -> None:
        """Look until it is no longer wanted."""
        work = work_of_pairs(self.evidence, self.rules.costs_ppm)
        budget = Budget(mean_peer_work(work) * self.replay_ppm / PPM)
        for pair in await self.bulletin.share.lane.beside(partial(self._hand, frozenset(work))):
            if self.is_wanted():
                where, verdict = await self._look(pair, partial(self._in_budget, pair, work[pair], budget))
                if verdict.replay in ("failed", "no-evidence"):
                    await self.findings.tell(self.voters.epoch, pair, where)
        while self.is_wanted():
            for one in self.findings.of(self.voters.epoch):
                if self.is_wanted() and one.signer in self.voters.weights:
                    await self._check(one)
            await trio.sleep(LOOK_EVERY_S)

    @property
    def _me(self) -> PeerId:
        return self.bulletin.member.identity.peer_id

    def _hand(self, pairs: frozenset[Pair]) -> tuple[Pair, ...]:
        """Return what is dealt to us, suspects first."""
        parts = attribute(self.evidence, self.rules)
        suspects = {peer_id for peer_id, part in parts.items() if part.harm.low > 0}
        suspects |= understating_tails(self.evidence, len(self.rules.costs_ppm))
        hands = deal_replays(self.seed, pairs, suspects, self.voters.weights.keys(), self.voters.seats)
        return hands.get(self._me, ())[:MAX_LOOKS]

    def _in_budget(self, pair: Pair, work: int, budget: Budget, segments: tuple[Segment, ...]) -> Segment | None:
        segment = draw_segment(self.seed, pair, segments)
        cost = work * (segment.end - segment.first) / segments[-1].end
        return segment if budget.takes(self.seed, pair, cost) else None

    async def _look(
        self, pair: Pair, choose: Callable[[tuple[Segment, ...]], Segment | None]
    ) -> tuple[int | None, Verdict]:
        """Read a pair's log and replay the segment that is chosen, if any; return which one that was."""
        where, verdict = await self._verdict(pair, choose)
        is_late = self.bulletin.share.epoch > self.voters.epoch + 1  # by now payloads are forgotten
        if verdict.replay == "no-evidence" and (is_late or not self.bulletin.member.view.is_live(pair[0])):
            verdict = Verdict("not-drawn")  # to be gone, or asked too late, is no fault
        self._seen[pair, where] = verdict
        _log.info("work looked at", extra={"peer": pair[0], "stage": pair[1], "segment": where, "is": verdict.replay})
        self.on_verdict(pair, verdict)
        return where, verdict

    async def _verdict(
        self, pair: Pair, choose: Callable[[tuple[Segment, ...]], Segment | None]
    ) -> tuple[int | None, Verdict]:
        work = self.bulletin.said(self.voters.epoch).work.get(pair)
        if work is None:
            owed = sum(one.pathway[pair[1]] == pair[0] for one in self.evidence.records)
            return None, Verdict("no-evidence" if owed > MAX_CROSSING else "not-drawn")
        if self.starts.contradict(work):
            return None, Verdict("failed", "start-state")
        shown = await self._replayer.read(work, self.evidence)
        if isinstance(shown, Verdict):
            return None, shown
        segment = choose(shown.segments)
        if segment is None:
            return None, Verdict("not-drawn")
        return segment.index, await self._replayer.redo(shown, segment, self.is_wanted)

    async def _check(self, finding: Verified[ReplayFinding]) -> None:
        """Look where somebody has found something, unless we did or it is about us."""
        said = finding.payload
        pair = (PeerId(said.peer), said.stage)
        if finding.signer == self._me or pair[0] == self._me or (pair, said.segment) in self._seen:
            return

        def named(segments: tuple[Segment, ...]) -> Segment | None:
            return segments[said.segment] if said.segment is not None and said.segment < len(segments) else None

        _, verdict = await self._look(pair, named)
        self._seen.setdefault((pair, said.segment), verdict)
        if said.segment is not None and verdict.replay == "passed":
            self.findings.distrust(finding.signer)
