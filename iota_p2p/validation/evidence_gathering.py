"""Gathering an epoch's evidence: from everybody who committed to some, checked and joined."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from iota_p2p.audit.dossier import LIST_KIND
from iota_p2p.ledger.ledger import Fact
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.evidence_exchange import fetch_evidence
from iota_p2p.validation.evidence_keeper import EvidenceKeeper
from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.domains import LOSS_RECORD
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_protocols.scoring.evidence import (
    EvidenceCommitment,
    EvidenceList,
    EvidenceTerms,
    JoinedEvidence,
    Witnessed,
    join_evidence,
    open_evidence,
)
from iota_p2p_protocols.scoring.score_record import MAX_EVIDENCE

# Holders asked at once: enough to hide their latency, few enough that 8 MiB from each fit in memory.
PARALLEL_FETCHES = 8

_log = logging.getLogger(__name__)

Shown = tuple[Verified[EvidenceCommitment], list[Witnessed]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What evidence there was.

    Attributes:
        joined: all of it.
        commitments: digests of the commitments it came from, ascending.
        num_silent: holders that showed nothing, or something else than they had committed to.
    """

    joined: JoinedEvidence
    commitments: tuple[bytes, ...]
    num_silent: int


@dataclass(slots=True)
class EvidenceGathering:
    """Fetches an epoch's evidence from everybody who committed to some.

    Attributes:
        bulletin: who committed to what.
        keeper: our own evidence.
        terms: what it must be of.
    """

    bulletin: Bulletin
    keeper: EvidenceKeeper
    terms: EvidenceTerms

    async def run(self) -> Gathered:
        """Return what could be had; every part of it is told to the bulletin's ledger."""
        committed = list(self.bulletin.said(self.terms.epoch).commitments.values())[:MAX_EVIDENCE]
        shown: list[Shown] = []
        limiter = trio.CapacityLimiter(PARALLEL_FETCHES)
        async with trio.open_nursery() as nursery:
            for commitment in committed:
                nursery.start_soon(self._fetch, commitment, limiter, shown)
        joined = join_evidence(shown, self.terms.run_id)
        names = tuple(sorted(commitment.digest for commitment, _ in shown))
        return Gathered(joined, names, len(committed) - len(shown))

    async def _fetch(
        self, commitment: Verified[EvidenceCommitment], limiter: trio.CapacityLimiter, shown: list[Shown]
    ) -> None:
        async with limiter:
            try:
                envelopes: Sequence[bytes] | None = self.keeper.shown(commitment.digest)
                if envelopes is None:
                    envelopes = await fetch_evidence(self.bulletin.member.network.streams, commitment)
                with self.bulletin.member.network.ledger.charging(commitment.signer):
                    check = partial(open_evidence, commitment, envelopes, self.terms)
                    opened = await self.bulletin.share.lane.beside(check)
            except (PeerUnavailableError, RemoteProtocolError) as error:
                _log.warning("evidence not shown", extra={"peer": commitment.signer, "reason": str(error)})
                return
        shown.append((commitment, opened))
        self._keep(commitment, envelopes)

    def _keep(self, commitment: Verified[EvidenceCommitment], envelopes: Sequence[bytes]) -> None:
        epoch, signer = commitment.payload.epoch, commitment.signer
        listed = EvidenceList(commitment=commitment.digest, records=tuple(map(digest, envelopes)))
        self.bulletin.on_fact(Fact(LIST_KIND, epoch, signer, canonical.encode(listed.to_fields())))
        for envelope in envelopes:
            self.bulletin.on_fact(Fact(LOSS_RECORD.name, epoch, signer, envelope))
