"""`Validation`: a peer's part in scoring, put together; it only composes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from iota_p2p.audit.dossier import RULES_KIND
from iota_p2p.ledger.ledger import Fact, Ledger
from iota_p2p.peer import Peer
from iota_p2p.training.work_share import WorkShare
from iota_p2p.validation.attendance import Attendance
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.bulletin_exchange import BulletinExchange
from iota_p2p.validation.certified_starts import CertifiedStarts
from iota_p2p.validation.docket import Docket
from iota_p2p.validation.evidence_exchange import serve_evidence
from iota_p2p.validation.evidence_keeper import EvidenceKeeper
from iota_p2p.validation.head_watch import HeadWatch
from iota_p2p.validation.proof_exchange import serve_proofs
from iota_p2p.validation.replay_exchange import serve_replay
from iota_p2p.validation.replay_findings import ReplayFindings
from iota_p2p.validation.seed_book import KEPT_SEEDS, SeedBook
from iota_p2p.validation.validator import Validator
from iota_p2p.validation.work_keeper import WorkKeeper
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.election import MAX_CANDIDATES, Registration
from iota_p2p_protocols.scoring.result import SEED_LAG, EpochResult

# Facts are written together: a commit takes milliseconds whatever its size, and what a kill takes comes again by
# gossip or is only missing from the archive; what we sign ourselves is written at once.
WRITE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """What a peer brings.

    Attributes:
        rules: the run's.
        ledger: of its home.
        step_s: see `Validator`.
        stake: what it registers with; 0 does not validate.
        replay_ppm: see `Validator`.
        software: name and version.
        kind: how it validates; bad peers of tests do it otherwise.
    """

    rules: ScoringRules
    ledger: Ledger
    step_s: float
    stake: int = 1
    replay_ppm: int = 0
    software: str = ""
    kind: type[Validator] = Validator


@dataclass(slots=True)
class Validation:
    """The parts; open one with `open_validation`."""

    validator: Validator
    share: WorkShare
    ledger: Ledger
    docket: Docket
    _facts: list[Fact] = field(default_factory=list)

    def keep(self, fact: Fact) -> None:
        """Take a fact for the ledger."""
        self._facts.append(fact)

    async def keep_writing(self) -> None:
        """Write what was kept, now and then, until cancelled."""
        while True:
            await trio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write what was kept."""
        facts: Sequence[Fact] = tuple(self._facts)
        if facts:
            self._facts.clear()
            await self.share.lane.beside(partial(self.ledger.add, facts))


@asynccontextmanager
async def open_validation(peer: Peer, share: WorkShare, config: ValidationConfig) -> AsyncIterator[Validation]:
    """Take part in validation for as long as the context lasts."""
    member = peer.membership.member
    keeper = EvidenceKeeper(peer.identity, share.terms.run_id)
    worked = WorkKeeper(peer.identity, share.terms.run_id)
    bulletin = Bulletin(member, share)
    findings, starts = ReplayFindings(bulletin), CertifiedStarts(bulletin)
    attendance = Attendance(member, share)
    facts: list[Fact] = []
    docket = Docket(bulletin, facts.append)
    exchange = BulletinExchange(bulletin, docket, config.rules.seats)
    heads = HeadWatch(bulletin, config.ledger, cosigns=bool(config.stake))
    _recall(bulletin, config.ledger)
    validator = config.kind(
        bulletin,
        exchange,
        heads,
        keeper,
        worked,
        attendance,
        docket,
        config.ledger,
        config.rules,
        SeedBook(share.terms.run_id, continues=share.epoch < SEED_LAG),
        step_s=config.step_s,
        stake=config.stake,
        software=config.software,
        findings=findings,
        starts=starts,
        replay_ppm=config.replay_ppm,
    )
    validation = Validation(validator, share, config.ledger, docket, facts)
    bulletin.on_fact = validation.keep
    bulletin.on_equivocation = docket.file
    share.witness, share.work_begun, share.work_closed = keeper.take, worked.begun, worked.closed
    share.work_stepped = worked.stepped
    validation.keep(Fact(RULES_KIND, 0, peer.identity.peer_id, config.rules.to_bytes()))
    await serve_evidence(peer.network.streams, keeper)
    await exchange.serve()
    await heads.serve()
    await serve_proofs(peer.network.streams, docket.proof_of)
    await serve_replay(peer.network.streams, worked, share.payloads, share.returns)
    async with trio.open_nursery() as nursery:
        for task in (
            bulletin.run,
            docket.run,
            heads.run,
            findings.run,
            starts.run,
            attendance.run,
            validator.run,
            validation.keep_writing,
        ):
            nursery.start_soon(task)
        try:
            yield validation
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await validation.write()


def _recall(bulletin: Bulletin, ledger: Ledger) -> None:
    """Take who registered, and the newest result that we saw certified, before we were ended, if not too old."""
    epoch, now_s = bulletin.share.epoch, bulletin.member.clock()
    # Those that count are the last ones kept; a ledger of years has no bound, and each costs a signature to open.
    for fact in ledger.facts(Registration.domain.name)[-MAX_CANDIDATES:]:
        registration = open_signed(fact.envelope, Registration)
        if registration.payload.expires_s > now_s:
            bulletin.take_registration(registration)
    for about in range(epoch, max(0, epoch - KEPT_SEEDS) - 1, -1):
        for fact in ledger.facts(EpochResult.domain.name, about)[:1]:
            bulletin.take_certified(open_signed(fact.envelope, EpochResult))
            return
