"""The dossier: all facts of one run in an archive, opened, sorted and joined; what cannot be opened is a failure."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from iota_p2p.audit.archive import Archive
from iota_p2p.audit.failure import Check, Failure
from iota_p2p.ledger.ledger import Fact
from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.domains import LOSS_RECORD, TREE_HEAD
from iota_p2p_crypto.envelope import Verified, open_envelope
from iota_p2p_crypto.errors import InvalidSignatureError, RemoteProtocolError, UserError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.tree_head import TreeHead
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.message import SignedMessage, open_signed
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.conviction import Conviction, open_proof
from iota_p2p_protocols.scoring.election import Registration
from iota_p2p_protocols.scoring.equivocation import Equivocation, open_equivocation_proof
from iota_p2p_protocols.scoring.evidence import EvidenceCommitment, EvidenceList
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment

# Kinds of a ledger that are no envelopes: their digests are named by others that are signed.
RULES_KIND = "scoring-rules"
LIST_KIND = "evidence-list"
EQUIVOCATION_KIND = "equivocation"
MERGE_FAULT_KIND = "merge-fault"


@dataclass(slots=True)
class Dossier:
    """A run's facts. Everything in it is verified by itself; whether it fits together is what an audit finds out.

    Attributes:
        run_id: which run.
        rules: by the digest that records name.
        registrations, commitments: all of them; commitments by digest.
        contributions: all of them.
        lists: by the digest of the commitment they belong to.
        loss_records: envelopes by digest, opened only when recomputed, as there are most of them.
        records: each validator's, in order of position.
        results: by epoch.
        heads: each validator's, shortest first.
        equivocations: proofs that were kept.
        convictions: what proofs of any kind come to, by their digest.
        failures: what could not be opened or lay in the wrong place.
    """

    run_id: bytes
    rules: dict[Digest, ScoringRules] = field(default_factory=dict)
    registrations: list[Verified[Registration]] = field(default_factory=list)
    commitments: dict[Digest, Verified[EvidenceCommitment]] = field(default_factory=dict)
    contributions: list[Verified[Contribution]] = field(default_factory=list)
    lists: dict[bytes, EvidenceList] = field(default_factory=dict)
    loss_records: dict[Digest, bytes] = field(default_factory=dict)
    records: dict[PeerId, list[Verified[ScoreRecord]]] = field(default_factory=lambda: defaultdict(list))
    results: dict[int, list[Verified[EpochResult]]] = field(default_factory=lambda: defaultdict(list))
    heads: dict[PeerId, list[Verified[TreeHead]]] = field(default_factory=lambda: defaultdict(list))
    equivocations: list[Equivocation] = field(default_factory=list)
    convictions: dict[Digest, Conviction] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def record_by_digest(self) -> dict[Digest, Verified[ScoreRecord]]:
        """Return all score records by the digest that results name."""
        return {record.digest: record for records in self.records.values() for record in records}

    @property
    def num_facts(self) -> dict[str, int]:
        """How many of each kind, for people."""
        return {
            "score records": sum(map(len, self.records.values())),
            "results": sum(map(len, self.results.values())),
            "tree heads": sum(map(len, self.heads.values())),
            "cosignatures": sum(len(head.signers) - 1 for heads in self.heads.values() for head in heads),
            "registrations": len(self.registrations),
            "evidence commitments": len(self.commitments),
            "contributions": len(self.contributions),
            "loss records": len(self.loss_records),
            "equivocation proofs": len(self.equivocations),
            "merge fault proofs": len(self.convictions) - sum(one.epoch is not None for one in self.equivocations),
        }


def open_dossier(archive: Archive, run_id: bytes | None = None) -> Dossier:
    """Open everything in an archive.

    Args:
        archive: what was read.
        run_id: the run to audit; None takes the only one there is.

    Raises:
        UserError: if there are records of several runs and none was chosen.
    """
    opened = _Opened()
    for fact in archive.all():
        opened.take(fact)
    dossier = Dossier(_chosen_run(opened, run_id))
    dossier.failures.extend(archive.damage)
    dossier.failures.extend(opened.failures)
    dossier.rules = {rules.digest(): rules for rules in opened.rules}
    dossier.lists = {one.commitment: one for one in opened.lists}
    dossier.loss_records = opened.loss_records
    dossier.equivocations = [one for one in opened.equivocations if one.run_id == dossier.run_id]
    dossier.convictions = {name: one for name, one in opened.convictions.items() if one.run_id == dossier.run_id}
    for message in opened.messages:
        if message.payload.run_id == dossier.run_id:
            _sort_in(dossier, message)
    for records in dossier.records.values():
        records.sort(key=lambda record: (record.payload.position, record.payload.epoch))
    for log_id, heads in dossier.heads.items():
        by_words: dict[bytes, Verified[TreeHead]] = {}  # one head is kept with ever more cosignatures
        for head in sorted(heads, key=lambda head: len(head.signers)):
            by_words[head.payload_bytes] = head
        dossier.heads[log_id] = sorted(by_words.values(), key=lambda head: head.payload.size)
    return dossier


def _sort_in(dossier: Dossier, message: Verified[Any]) -> None:
    match message.payload:
        case Registration():
            dossier.registrations.append(message)
        case Contribution():
            dossier.contributions.append(message)
        case EvidenceCommitment():
            dossier.commitments[message.digest] = message
        case ScoreRecord():
            dossier.records[message.signer].append(message)
        case EpochResult():
            dossier.results[message.payload.epoch].append(message)
        case TreeHead():
            dossier.heads[message.payload.log_id].append(message)


def _chosen_run(opened: "_Opened", wanted: bytes | None) -> bytes:
    runs: set[bytes] = {message.payload.run_id for message in opened.messages}
    if wanted is not None:
        return wanted
    if len(runs) != 1:
        found = ", ".join(sorted(run.hex()[:16] for run in runs)) or "none"
        raise UserError(f"expected the facts of one run, found those of {len(runs)} ({found}): choose with --run-id")
    return next(iter(runs))


_SIGNED: dict[str, type[SignedMessage]] = {
    kind.domain.name: kind
    for kind in (Contribution, EpochResult, EvidenceCommitment, Registration, ScoreRecord, WorkCommitment)
}


@dataclass(slots=True)
class _Opened:
    """Facts as they are opened, of all runs."""

    messages: list[Verified[Any]] = field(default_factory=list)
    rules: list[ScoringRules] = field(default_factory=list)
    lists: list[EvidenceList] = field(default_factory=list)
    loss_records: dict[Digest, bytes] = field(default_factory=dict)
    equivocations: list[Equivocation] = field(default_factory=list)
    convictions: dict[Digest, Conviction] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def take(self, fact: Fact) -> None:
        """Open one fact and put it where it belongs; kinds that have nothing to do with scores are left out."""
        try:
            self._open(fact)
        except RemoteProtocolError as error:
            self.failures.append(Failure(Check.FORM, subject_of(fact), error.rule, str(error)))

    def _open(self, fact: Fact) -> None:
        if fact.kind in _SIGNED:
            message: Verified[Any] = open_signed(fact.envelope, _SIGNED[fact.kind])
            self._place(fact, message, message.payload.epoch)
        elif fact.kind == TREE_HEAD.name:
            head = open_envelope(fact.envelope, TREE_HEAD, TreeHead.from_fields)
            if head.payload.log_id not in head.signers:
                raise InvalidSignatureError(
                    "tree-head-owner", f"expected a signature by {head.payload.log_id}, got none"
                )
            self._place(fact, head, None)
        elif fact.kind == LOSS_RECORD.name:
            self.loss_records[digest(fact.envelope)] = fact.envelope
        elif fact.kind == RULES_KIND:
            self.rules.append(ScoringRules.from_bytes(fact.envelope))
        elif fact.kind == LIST_KIND:
            self.lists.append(EvidenceList.from_fields(canonical.decode(fact.envelope)))
        elif fact.kind == EQUIVOCATION_KIND:
            found = open_equivocation_proof(fact.envelope)
            self.equivocations.append(found)
            if found.epoch is not None:
                self._convict(fact)
        elif fact.kind == MERGE_FAULT_KIND:
            self._convict(fact)

    def _convict(self, fact: Fact) -> None:
        proved = open_proof(fact.envelope)
        self.convictions[digest(fact.envelope)] = proved
        if (fact.signer, fact.epoch) != (proved.charge.guilty, proved.epoch):
            reason = f"expected a proof against {fact.signer} in epoch {fact.epoch}, got one of a {proved.charge}"
            self.failures.append(Failure(Check.PLACE, subject_of(fact), "fact-place", reason))

    def _place(self, fact: Fact, message: Verified[Any], epoch: int | None) -> None:
        """Check that a fact was kept for what it is. An empty signer means our own log, or a file by itself."""
        self.messages.append(message)
        if fact.signer and (fact.signer not in message.signers or epoch not in (None, fact.epoch)):
            self.failures.append(
                Failure(
                    Check.PLACE,
                    subject_of(fact),
                    "fact-place",
                    f"expected what {fact.signer} signed about epoch {fact.epoch}, "
                    f"got a {fact.kind} by {', '.join(message.signers)} about epoch {epoch}",
                )
            )


def subject_of(fact: Fact) -> str:
    """Name a fact for people."""
    by = f" by {fact.signer}" if fact.signer else ""
    return f"{fact.kind} {digest(fact.envelope).hex()[:16]} of epoch {fact.epoch}{by}"
