"""Reporting: what every member says of its shards, and what becomes of those of which two say different things."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import floor

import trio

from iota_p2p.merge.collecting import Collecting, ReducedShard
from iota_p2p.merge.letters import Letter, Letters
from iota_p2p.merge.proving import prove_reducer
from iota_p2p.merge.round import Means, Round
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_protocols.butterfly.agreement import (
    AgreementMatrix,
    agreement_matrix,
    claims_by_shard,
    ranked,
)
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim, check_reducer_report
from iota_p2p_protocols.butterfly.report_fault import make_report_fault
from iota_p2p_protocols.butterfly.shard_map import Shard
from iota_p2p_protocols.message import open_message, seal_message

# After our own report everybody else's comes soon, or its member is dead: as long again as our own took, and this.
REPORTS_S = 1.0
REPORTS_FACTOR = 2.0
LIFETIME_S = 600

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """One claim on a shard.

    Attributes:
        claim: what is claimed.
        members: who claims just that, besides those whom a proof names.
    """

    claim: ShardClaim
    members: Sequence[int]


@dataclass(slots=True)
class Reporting:
    """The reports of one merge.

    Attributes:
        means: how members are called.
        round_: the merge.
        letters: how reports travel.
        reports: those that are in order, by member.
        liars: members that a proof names.
        faults: the proofs.
    """

    means: Means
    round_: Round
    letters: Letters
    reports: dict[int, Verified[ReducerReport]] = field(default_factory=dict)
    liars: set[int] = field(default_factory=set)
    faults: list[bytes] = field(default_factory=list)

    def report(self, reduced: Sequence[ReducedShard]) -> None:
        """Sign what we reduced, and send it to all."""
        now_s = floor(self.means.clock())
        report = ReducerReport(
            run_id=self.means.run_id,
            sequence=self.round_.epoch,
            issued_s=now_s,
            expires_s=now_s + LIFETIME_S,
            epoch=self.round_.epoch,
            stage=self.round_.stage,
            roster=self.round_.roster,
            claims=tuple(shard.claim for shard in reduced),
        )
        data = seal_message(report, self.means.identity)
        self._take(Letter(self.means.identity.peer_id, "report", data))
        self.letters.send("report", data, self.round_.members)

    async def hear(self, took_s: float) -> None:
        """Take the others' reports until all are here, or time is up; `took_s` is what our own took."""
        until_s = trio.current_time() + REPORTS_S + REPORTS_FACTOR * took_s
        while True:
            for letter in self.letters.read("report"):
                self._take(letter)
            if len(self.reports) == len(self.round_.contributors) or not await self.letters.more(until_s):
                return

    def _take(self, letter: Letter) -> None:
        try:
            with self.means.streams.ledger.charging(letter.sender):
                report = open_message(letter.data, ReducerReport, run_id=self.means.run_id, now_s=self.means.clock())
                member = check_reducer_report(
                    report, roster=self.round_.roster, members=self.round_.members, shard_map=self.round_.shard_map
                )
        except RemoteProtocolError as error:
            _log.warning("report refused", extra={"peer": letter.sender, "reason": str(error)})
            return
        known = self.reports.setdefault(member, report)
        if known.digest != report.digest:
            self._convict(member, report, known)

    def _convict(self, member: int, report: Verified[ReducerReport], known: Verified[ReducerReport]) -> None:
        try:
            self.faults.append(make_report_fault(known, report))
        except RemoteProtocolError:
            return  # they say the same of other shards, or at other times
        self.liars.add(member)

    @property
    def payloads(self) -> dict[int, ReducerReport]:
        """What each member reported."""
        return {member: report.payload for member, report in self.reports.items()}

    @property
    def matrix(self) -> AgreementMatrix:
        """Who agrees with whom."""
        return agreement_matrix(self.round_.shard_map, self.payloads)

    async def judge(self, shards: Sequence[Shard]) -> None:
        """Recompute shards from the members' committed blocks, and name those who claim something else.

        Args:
            shards: those in dispute, or whose claimed results cannot be right.
        """
        if not shards:
            return
        _log.warning("shards in dispute", extra={"epoch": self.round_.epoch, "shards": len(shards)})
        collecting = Collecting(self.means, self.round_, shards)
        await collecting.run()
        for shard in shards:
            await self._judge(shard, collecting)

    async def _judge(self, shard: Shard, collecting: Collecting) -> None:
        claims = claims_by_shard(self.round_.shard_map, self.payloads)[shard.index]
        said = next(iter(claims.values()))
        if not set(collecting.missing(shard)) <= set(said.missing):
            return  # somebody died meanwhile: nobody can tell any more, and the shard is lost
        truth = await self.means.beside(partial(collecting.reduce_shard, shard, said.missing))
        for member, claim in claims.items():
            if claim.digest == truth.claim.digest or member == self.round_.me:
                continue
            fault = None
            if member not in self.liars:  # one proof of each will do
                fault = await prove_reducer(self.means, collecting, self.reports[member], truth, shard)
            self.liars.add(member)
            if fault is not None:
                self.faults.append(fault)

    def choices(self) -> Sequence[Sequence[Choice]]:
        """Return by shard the claims to take a copy of, the best first, and who makes them."""
        return [
            [
                Choice(claim, tuple(m for m, one in said.items() if one == claim and m not in self.liars))
                for claim in ranked(said, self.liars)
            ]
            for said in claims_by_shard(self.round_.shard_map, self.payloads)
        ]
