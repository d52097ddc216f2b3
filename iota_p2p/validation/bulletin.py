"""The bulletin: what validators and holders of evidence have said lately, as it came by gossip."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import trio

from iota_p2p.ledger.ledger import Fact
from iota_p2p.membership.member import Member, open_recent
from iota_p2p.network.gossip import Validate
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution, validate_contribution_gossip
from iota_p2p_protocols.ids import (
    COMMITMENTS,
    CONTRIBUTIONS,
    FAULTS,
    PREFERENCES,
    REGISTRATIONS,
    RESULTS,
    SCORES,
    WORK,
    TopicSpec,
)
from iota_p2p_protocols.message import open_gossip
from iota_p2p_protocols.scoring.accusation import Accusation
from iota_p2p_protocols.scoring.announcements import (
    KEPT_EPOCHS,
    validate_accusation,
    validate_of_epoch,
    validate_result,
)
from iota_p2p_protocols.scoring.election import MAX_CANDIDATES, Electorate, Registration, electorate
from iota_p2p_protocols.scoring.equivocation import make_equivocation_proof
from iota_p2p_protocols.scoring.evidence import EvidenceCommitment, Role
from iota_p2p_protocols.scoring.preference import Preference
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment

# Registrations of one peer that are remembered: the newest, and those before that still count for past epochs.
KEPT_REGISTRATIONS = 4
# Holders of evidence and validators of one epoch that are listened to; no run has more peers (`view.MAX_PEERS`).
MAX_SPEAKERS = 4096

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Said:
    """What was said about one epoch; of two things one signer says of one kind the first counts."""

    commitments: dict[tuple[PeerId, Role], Verified[EvidenceCommitment]] = field(default_factory=dict)
    records: dict[PeerId, Verified[ScoreRecord]] = field(default_factory=dict)
    second_records: dict[PeerId, Verified[ScoreRecord]] = field(default_factory=dict)  # of those who signed two
    preferences: dict[tuple[int, PeerId], Verified[Preference]] = field(default_factory=dict)  # by round and signer
    votes: dict[PeerId, Verified[EpochResult]] = field(default_factory=dict)
    work: dict[tuple[PeerId, int], Verified[WorkCommitment]] = field(default_factory=dict)  # by signer and stage
    contributions: dict[tuple[PeerId, int], Verified[Contribution]] = field(default_factory=dict)  # likewise


@dataclass(slots=True)
class Bulletin:
    """Hears, sorts and publishes.

    Attributes:
        member: who we are and how we reach others.
        share: whose epoch it is.
        on_fact: told of everything new, for the ledger.
        on_equivocation: told of proofs that somebody signed two things.
        on_accusation: told of what others say they have proofs of.
        registrations: per peer, oldest first.
        certified: the newest result that was certified, as far as we know.
    """

    member: Member
    share: WorkShare
    on_fact: Callable[[Fact], None] = lambda _: None
    on_equivocation: Callable[[bytes], None] = lambda _: None
    on_accusation: Callable[[Verified[Accusation]], None] = lambda _: None
    registrations: dict[PeerId, list[Verified[Registration]]] = field(default_factory=dict)
    certified: Verified[EpochResult] | None = None
    _said: dict[int, Said] = field(default_factory=dict)

    async def run(self) -> None:
        """Listen until cancelled."""
        async with trio.open_nursery() as nursery:
            of = self._of_epoch
            nursery.start_soon(self._listen, COMMITMENTS, partial(of, kind=EvidenceCommitment), self.take_commitment)
            nursery.start_soon(self._listen, SCORES, partial(of, kind=ScoreRecord), self.take_record)
            nursery.start_soon(self._listen, PREFERENCES, partial(of, kind=Preference), self.take_preference)
            nursery.start_soon(self._listen, WORK, partial(of, kind=WorkCommitment), self.take_work)
            nursery.start_soon(self._listen, CONTRIBUTIONS, self._contribution, self.take_contribution)
            nursery.start_soon(self._listen, FAULTS, self._accusation, self.take_accusation)
            nursery.start_soon(self._listen, REGISTRATIONS, self._registration, self.take_registration)
            nursery.start_soon(self._listen, RESULTS, self._result, self.take_votes)

    def said(self, epoch: int) -> Said:
        """Return what was said about an epoch; what is older than KEPT_EPOCHS is forgotten."""
        for old in [of for of in self._said if of < self.share.epoch - KEPT_EPOCHS]:
            del self._said[old]
        return self._said.setdefault(epoch, Said())

    def all_registrations(self) -> Sequence[Verified[Registration]]:
        """Return all that may count."""
        return tuple(chain.from_iterable(self.registrations.values()))

    def electorate(self, epoch: int, seats: int) -> Electorate:
        """Return who may be elected for an epoch, as far as we have heard."""
        return electorate(self.all_registrations(), epoch=epoch, seats=seats)

    async def publish(self, topic: TopicSpec, message: Verified[Any]) -> None:
        """Say something of ours, and hear it ourselves; a network that is down is nobody's fault."""
        match message.payload:
            case EvidenceCommitment():
                self.take_commitment(message)
            case ScoreRecord():
                self.take_record(message)
            case Preference():
                self.take_preference(message)
            case EpochResult():
                self.take_votes(message)
            case WorkCommitment():
                self.take_work(message)
        await self.pass_on(topic, message.envelope_bytes)

    async def pass_on(self, topic: TopicSpec, envelope: bytes) -> None:
        """Publish an envelope; a network that is down is nobody's fault."""
        try:
            await self.member.network.gossip.publish(topic, envelope)
        except PeerUnavailableError as error:
            _log.debug("not published", extra={"topic": topic.name, "reason": str(error)})

    def take_registration(self, one: Verified[Registration]) -> None:
        """Remember who offers itself."""
        if one.signer not in self.registrations and len(self.registrations) >= MAX_CANDIDATES:
            return
        known = self.registrations.setdefault(one.signer, [])
        if not known or one.payload.sequence > known[-1].payload.sequence:
            known.append(one)
            del known[:-KEPT_REGISTRATIONS]
            self._keep(one.payload.epoch, one)

    def take_commitment(self, one: Verified[EvidenceCommitment]) -> None:
        """Remember what a holder committed to."""
        known, key = self.said(one.payload.epoch).commitments, (one.signer, one.payload.role)
        if key not in known and len(known) < MAX_SPEAKERS:
            known[key] = one
            self._keep(one.payload.epoch, one)

    def take_record(self, one: Verified[ScoreRecord]) -> None:
        """Remember a validator's record; a second one that differs convicts it, but others may rest on it."""
        said = self.said(one.payload.epoch)
        known = said.records
        first = known.get(one.signer)
        if first is None and len(known) < MAX_SPEAKERS:
            known[one.signer] = one
            self._keep(one.payload.epoch, one)
        elif first is not None and first.payload_bytes != one.payload_bytes and one.signer not in said.second_records:
            said.second_records[one.signer] = one
            self._keep(one.payload.epoch, one)
            self._compare(first, one)

    def take_votes(self, one: Verified[EpochResult]) -> None:
        """Remember who votes for which result; whoever votes for two is convicted."""
        known = self.said(one.payload.epoch).votes
        for signer in one.signers:
            first = known.get(signer)
            if first is None and len(known) < MAX_SPEAKERS:
                known[signer] = one
            elif first is not None:
                self._compare(first, one)

    def take_certified(self, one: Verified[EpochResult]) -> None:
        """Remember the newest result that a quorum has signed."""
        if self.certified is None or self.certified.payload.epoch < one.payload.epoch:
            self.certified = one

    def take_preference(self, one: Verified[Preference]) -> None:
        """Remember what a validator prefers; whoever prefers two things in a round is convicted."""
        known, key = self.said(one.payload.epoch).preferences, (one.payload.round, one.signer)
        first = known.get(key)
        if first is None and len(known) < MAX_SPEAKERS:
            known[key] = one
        elif first is not None:
            self._compare(first, one)

    def take_work(self, one: Verified[WorkCommitment]) -> None:
        """Remember what a peer says it did on a stage."""
        known, key = self.said(one.payload.epoch).work, (one.signer, one.payload.stage)
        if key not in known and len(known) < MAX_SPEAKERS:
            known[key] = one
            self._keep(one.payload.epoch, one)

    def _compare(self, first: Verified[Any], second: Verified[Any]) -> None:
        """Tell of two things that one signer said where one is allowed."""
        if first.payload_bytes != second.payload_bytes:
            self.on_equivocation(make_equivocation_proof(first.envelope_bytes, second.envelope_bytes))

    def hear_registration(self, envelope: bytes, signer: PeerId) -> None:
        """Take a registration that somebody passed on; raises RemoteProtocolError if it does not hold."""
        self.take_registration(self._registration(envelope, signer))

    def hear_accusation(self, envelope: bytes, signer: PeerId) -> None:
        """Take an accusation that somebody passed on; raises RemoteProtocolError if it does not hold."""
        self.take_accusation(self._accusation(envelope, signer))

    def take_contribution(self, one: Verified[Contribution]) -> None:
        """Remember from which weights a peer worked."""
        known, key = self.said(one.payload.epoch).contributions, (one.signer, one.payload.stage)
        if key not in known and len(known) < MAX_SPEAKERS:
            known[key] = one
            self._keep(one.payload.epoch, one)

    def contributions(self) -> Sequence[Verified[Contribution]]:
        """Return what was said of the last epochs."""
        return [one for said in self._said.values() for one in said.contributions.values()]

    def take_accusation(self, one: Verified[Accusation]) -> None:
        """Pass on that somebody has a proof."""
        self.on_accusation(one)

    def _keep(self, epoch: int, one: Verified[Any]) -> None:
        self.on_fact(Fact(one.payload.domain.name, epoch, one.signer, one.envelope_bytes))

    async def _listen(self, topic: TopicSpec, check: Validate[T], take: Callable[[T], None]) -> None:
        async with self.member.network.gossip.subscribe(topic, check) as heard:
            async for one in heard:
                take(one)

    def _of_epoch(self, data: bytes, author: PeerId, kind: type[Any]) -> Verified[Any]:
        run_id, now_s, epoch = self.share.terms.run_id, self.member.clock(), self.share.epoch
        return validate_of_epoch(data, author, kind, run_id=run_id, epoch=epoch, now_s=now_s, opener=open_recent)

    def _accusation(self, data: bytes, author: PeerId) -> Verified[Accusation]:
        known = self.member.view.known()
        return validate_accusation(self._of_epoch(data, author, Accusation), known)

    def _contribution(self, data: bytes, author: PeerId) -> Verified[Contribution]:
        run_id, now_s, epoch = self.share.terms.run_id, self.member.clock(), self.share.epoch
        return validate_contribution_gossip(data, author, run_id=run_id, epoch=epoch, now_s=now_s, opener=open_recent)

    def _registration(self, data: bytes, author: PeerId) -> Verified[Registration]:
        run_id, now_s = self.share.terms.run_id, self.member.clock()
        return open_gossip(data, author, Registration, run_id=run_id, now_s=now_s, opener=open_recent)

    def _result(self, data: bytes, author: PeerId) -> Verified[EpochResult]:
        run_id, now_s, epoch = self.share.terms.run_id, self.member.clock(), self.share.epoch
        return validate_result(data, author, run_id=run_id, epoch=epoch, now_s=now_s, opener=open_recent)
