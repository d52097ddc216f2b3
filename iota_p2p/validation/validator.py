"""A peer's part in validation, epoch by epoch: show evidence; and, if it validates, reveal, vote, be elected, score.

After an epoch e has closed, in steps of `step_s`:

    1  everybody commits to its evidence and its work of e; nobody knows yet who will look at it
    2  the validators of e - 1 reveal their records, and with them the outputs that make the next seed
    3  they agree and vote on the result of e - 1; its certificate is the seed that elects the validators of e
    5  without a certificate the chain of seeds goes on without outputs
    then  the validators of e fetch the evidence, score it and replay work, while e + 1 trains
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import floor
from typing import Any, ClassVar

import trio

from iota_p2p.ledger.ledger import Fact, Ledger
from iota_p2p.training.lane import Priority
from iota_p2p.validation.attendance import Attendance
from iota_p2p.validation.ballot import Ballot
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.bulletin_exchange import BulletinExchange
from iota_p2p.validation.certified_starts import CertifiedStarts
from iota_p2p.validation.docket import Docket
from iota_p2p.validation.evidence_gathering import EvidenceGathering, Gathered
from iota_p2p.validation.evidence_keeper import EvidenceKeeper
from iota_p2p.validation.head_watch import HeadWatch
from iota_p2p.validation.replay_findings import ReplayFindings
from iota_p2p.validation.replay_round import ReplayRound
from iota_p2p.validation.seed_book import SeedBook
from iota_p2p.validation.work_keeper import WorkKeeper
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.ids import COMMITMENTS, REGISTRATIONS, RESULTS, SCORES, WORK
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.assembly import Observation, score_rows, with_faults
from iota_p2p_protocols.scoring.attribution import mean_loss_micronats
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.election import ElectionProof, Electorate, Registration, elect
from iota_p2p_protocols.scoring.evidence import EvidenceCommitment, EvidenceTerms
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.preference import MAX_ROUNDS
from iota_p2p_protocols.scoring.replay_draw import Pair
from iota_p2p_protocols.scoring.replay_verdict import Verdict, worse
from iota_p2p_protocols.scoring.result import CertifiedResult
from iota_p2p_protocols.scoring.score_record import GENESIS, MAX_PROOFS, ScoreRecord
from iota_p2p_protocols.scoring.synchronisation import synchronisation_of
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment

LOOK_EVERY_S = 0.1
LIFETIME_S = 86_400
# Epochs whose validation is under way at a time: in one it is shown, in the next it is scored and revealed.
MAX_UNDER_WAY = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scored epoch whose record is not signed yet: until it is revealed, nothing of it leaves this peer."""

    election: ElectionProof
    voters: Electorate
    gathered: Gathered
    seen: dict[PeerId, Observation]


@dataclass(slots=True)
class Validator:
    """Runs validation for one peer.

    Attributes:
        ballot: how results are agreed on; bad peers of tests do it otherwise.
        bulletin: what is said and heard.
        exchange: what others heard, too.
        heads: what everybody's log holds.
        keeper: our evidence.
        worked: what we did on our stages.
        attendance: who was there.
        docket: what is proved against whom.
        ledger: what we may sign only once.
        rules: the run's.
        seeds: the chain of seeds.
        step_s: between two steps, in seconds; long enough for everybody to have turned over and for gossip to arrive.
        stake: what we register with; 0 does not validate.
        software: name and version, for records.
        findings: what other validators' replays found.
        starts: what stages began their epochs with.
        replay_ppm: what we replay of an epoch, of what a peer does in it on average.
        on_replay: told of the epoch, the pair and the verdict.
        on_record, on_result: told of what we signed and what was agreed.
    """

    ballot: ClassVar[type[Ballot]] = Ballot

    bulletin: Bulletin
    exchange: BulletinExchange
    heads: HeadWatch
    keeper: EvidenceKeeper
    worked: WorkKeeper
    attendance: Attendance
    docket: Docket
    ledger: Ledger
    rules: ScoringRules
    seeds: SeedBook
    step_s: float
    stake: int
    software: str
    findings: ReplayFindings
    starts: CertifiedStarts
    replay_ppm: int = 0
    on_replay: Callable[[int, Pair, Verdict], None] = lambda _epoch, _pair, _verdict: None
    on_record: Callable[[ScoreRecord], None] = lambda _: None
    on_result: Callable[[CertifiedResult], None] = lambda _: None
    _prepared: dict[int, Prepared] = field(default_factory=dict)

    async def run(self) -> None:
        """Validate every epoch that closes, until cancelled."""
        share = self.bulletin.share
        if self.stake:
            await self._register()
        epoch = share.epoch
        limiter = trio.CapacityLimiter(MAX_UNDER_WAY)
        async with trio.open_nursery() as nursery:
            while True:
                while share.epoch == epoch:  # noqa: ASYNC110 - the epoch has no event of its own
                    await trio.sleep(LOOK_EVERY_S)
                epoch = share.epoch
                nursery.start_soon(self._after, epoch - 1, limiter)

    async def _after(self, closed: int, limiter: trio.CapacityLimiter) -> None:
        """Do everything that follows an epoch's close."""
        began_s = trio.current_time()
        self.keeper.close_for_sources(closed)
        async with limiter:
            await trio.sleep_until(began_s + self.step_s)
            await self._commit(closed)
            with trio.move_on_at(began_s + 2 * self.step_s):
                await self.exchange.compare()
            await trio.sleep_until(began_s + 2 * self.step_s)
            # Of stages whose merges take longer, as far as their logs go: the seed is still open.
            await self.bulletin.share.lane.run(Priority.BACKWARD, partial(self.worked.cut, closed))
            await self._commit_work(closed)
            await self._reveal(closed - 1)
            await trio.sleep_until(began_s + 3 * self.step_s)
            self._catch_up(closed)
            with trio.move_on_at(began_s + 5 * self.step_s):
                await self._decide(closed - 1)
            self._catch_up(closed + 1)
            self.heads.keep(closed)
            if self.stake:
                await self._score(closed)
                await self._register()  # who has joined since has not heard of us
        await self._replay(closed)

    def _catch_up(self, epoch: int) -> None:
        """Know an epoch's seed by now, whether we were there all the time or not."""
        self.seeds.hear(epoch, self.bulletin, self.rules.seats)
        self.seeds.go_on_without(epoch)

    async def _register(self) -> None:
        """Offer ourselves; with the same registration while half of its life is left."""
        epoch = self.bulletin.share.epoch

        def make() -> bytes:
            message = Registration(**self._common(epoch, LIFETIME_S), stake=self.stake)
            return seal_message(message, self.bulletin.member.identity)

        known = self.bulletin.registrations.get(self.bulletin.member.identity.peer_id)
        lasts = known is not None and known[-1].payload.expires_s > self.bulletin.member.clock() + LIFETIME_S / 2
        envelope = known[-1].envelope_bytes if known and lasts else make()
        self.bulletin.take_registration(open_signed(envelope, Registration))
        await self.bulletin.pass_on(REGISTRATIONS, envelope)

    async def _commit(self, closed: int) -> None:
        for envelope in self.keeper.commit(closed, self.bulletin.member.clock()):
            await self.bulletin.publish(COMMITMENTS, open_signed(envelope, EvidenceCommitment))
        await self._commit_work(closed)

    async def _commit_work(self, closed: int) -> None:
        commit = partial(self.worked.commit, closed, self.bulletin.member.clock())
        for envelope in await self.bulletin.share.lane.beside(commit):
            await self.bulletin.publish(WORK, open_signed(envelope, WorkCommitment))

    async def _reveal(self, epoch: int) -> None:
        """Sign the record of an epoch that we have scored, once and for ever, and publish it."""
        prepared = self._prepared.pop(epoch, None)
        if prepared is None:
            return
        envelope = self.ledger.sign_once(ScoreRecord.domain.name, epoch, lambda: self._sign(epoch, prepared))
        record = open_signed(envelope, ScoreRecord)
        await self.bulletin.publish(SCORES, record)
        await self.heads.publish(epoch)
        self.on_record(record.payload)

    def _sign(self, epoch: int, prepared: Prepared) -> bytes:
        log = self.ledger.own_log(ScoreRecord.domain.name)
        identity, joined = self.bulletin.member.identity, prepared.gathered.joined
        proved = dict(islice(self.docket.convictions(epoch).items(), MAX_PROOFS))
        record = ScoreRecord(
            **self._common(epoch, LIFETIME_S),
            position=len(log),
            previous=open_signed(log[-1].envelope, ScoreRecord).digest if log else GENESIS,
            election=prepared.election,
            evidence=prepared.gathered.commitments,
            proofs=tuple(sorted(proved.values())),
            rules=self.rules.digest(),
            software=self.software,
            mean_loss_micronats=mean_loss_micronats(joined),
            rows=score_rows(joined, with_faults(prepared.seen, proved), self.rules, identity.peer_id),
        )
        return seal_message(record, identity)

    async def _decide(self, epoch: int) -> None:
        if epoch < 0:
            return
        round_s = 2 * self.step_s / MAX_ROUNDS
        certified = await self.ballot(self.bulletin, self.ledger, self.rules, self.seeds, epoch, round_s).run()
        self.seeds.learn(certified.payload)
        self.bulletin.take_certified(certified.result)
        envelope = certified.result.envelope_bytes
        signer = certified.validators[0]
        self.bulletin.on_fact(Fact(certified.payload.domain.name, epoch, signer, envelope))
        await self.bulletin.pass_on(RESULTS, envelope)  # whoever missed a vote has them all
        self.on_result(certified)

    async def _score(self, closed: int) -> None:
        seed = self.seeds.seed(closed + 1)
        member = self.bulletin.member
        voters = self.bulletin.electorate(closed, self.rules.seats)
        if seed is None or member.identity.peer_id not in voters.weights:
            return
        election = elect(member.identity, voters, run_id=self.bulletin.share.terms.run_id, seed=seed)
        if election is None or election.round:  # later rounds are for when too few came forward
            return
        terms = self.bulletin.share.terms
        gathering = EvidenceGathering(
            self.bulletin,
            self.keeper,
            EvidenceTerms(run_id=terms.run_id, num_stages=terms.num_stages, epoch=closed),
        )
        gathered = await gathering.run()
        self._prepared[closed] = Prepared(election, voters, gathered, self._observations(closed, gathered))
        _log.info("epoch scored", extra={"epoch": closed, "records": len(gathered.joined.records)})

    async def _replay(self, closed: int) -> None:
        """Replay what is drawn of an epoch that we have scored; what is known when we reveal is in the record."""
        prepared, seed = self._prepared.get(closed), self.seeds.seed(closed + 1)
        if prepared is None or seed is None:
            return

        def note(pair: Pair, verdict: Verdict) -> None:
            seen = prepared.seen.get(pair[0], Observation())
            prepared.seen[pair[0]] = replace(seen, replay=worse(seen.replay, verdict.replay))
            self.on_replay(closed, pair, verdict)

        await ReplayRound(
            bulletin=self.bulletin,
            findings=self.findings,
            starts=self.starts,
            evidence=prepared.gathered.joined,
            rules=self.rules,
            voters=prepared.voters,
            seed=seed,
            replay_ppm=self.replay_ppm,
            is_wanted=lambda: closed in self._prepared,
            on_verdict=note,
        ).run()

    def _observations(self, epoch: int, gathered: Gathered) -> dict[PeerId, Observation]:
        presence = self.attendance.presence_ppm(epoch)
        worked = {peer_id for one in gathered.joined.records for peer_id in one.pathway}
        in_step = synchronisation_of(self.bulletin.contributions(), gathered.joined, epoch)
        return {
            peer_id: Observation(presence_ppm=presence.get(peer_id, 0), synchronisation_ppm=in_step.get(peer_id, PPM))
            for peer_id in worked
        }

    def _common(self, epoch: int, lifetime_s: int) -> dict[str, Any]:
        now_s = self.bulletin.member.clock()
        return {
            "run_id": self.bulletin.share.terms.run_id,
            "sequence": floor(now_s * 1000),
            "issued_s": floor(now_s),
            "expires_s": floor(now_s) + lifetime_s,
            "epoch": epoch,
        }
