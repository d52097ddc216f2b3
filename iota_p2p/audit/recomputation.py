"""`audit recompute`: what the evidence bears out of every score record, computed again from nothing but the evidence.

Work, records, harm with its interval, the mean loss and what was withheld follow from loss records to the last digit,
on any machine; faults, from the proofs that a record names; steps behind, from contributions. Presence and replays
are what the validator saw and did; they are taken from its record, signed as they are, and its score is computed
from both.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iota_p2p.audit.dossier import Dossier
from iota_p2p.audit.failure import Check, Failure
from iota_p2p.audit.verification import subject_of
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.attribution import Attribution, attribute, mean_loss_micronats
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.evidence import (
    EvidenceCommitment,
    EvidenceTerms,
    JoinedEvidence,
    Witnessed,
    join_evidence,
    open_evidence,
)
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.score_record import ScoreRecord, ScoreRow
from iota_p2p_protocols.scoring.synchronisation import synchronisation_of

Shown = tuple[Verified[EvidenceCommitment], list[Witnessed]]


class MissingEvidenceError(RemoteProtocolError):
    """A record rests on evidence that the archive does not hold: not proved false, but not proved either."""


@dataclass(frozen=True, slots=True)
class Recomputation:
    """What came out.

    Attributes:
        num_records: score records computed again.
        num_losses: loss records that took.
        failures: what the evidence does not bear out, and what evidence is missing.
    """

    num_records: int
    num_losses: int
    failures: list[Failure]


def recompute(dossier: Dossier) -> Recomputation:
    """Compute every score record of a dossier again."""
    shown: dict[Digest, Shown] = {}
    failures: list[Failure] = []
    num_losses = num_records = 0
    for record in dossier.record_by_digest().values():
        rules = dossier.rules.get(Digest(record.payload.rules))
        try:
            if rules is None:
                raise MissingEvidenceError("score-rules", "expected the rules it names, got none")
            evidence = evidence_of(dossier, record, rules, shown)
        except RemoteProtocolError as error:
            check = Check.MISSING if isinstance(error, MissingEvidenceError) else Check.RECOMPUTED
            failures.append(Failure(check, subject_of(record), error.rule, str(error), record.signer))
            continue
        failures += compare(record, evidence, rules)
        failures += compare_faults(record, dossier)
        failures += compare_steps(record, evidence, dossier)
        num_records, num_losses = num_records + 1, num_losses + len(evidence.records)
    return Recomputation(num_records, num_losses, failures)


def evidence_of(
    dossier: Dossier, record: Verified[ScoreRecord], rules: ScoringRules, shown: dict[Digest, Shown]
) -> JoinedEvidence:
    """Return the evidence that a record names, opened once for all records (`shown` keeps it).

    Raises:
        MissingEvidenceError: if some of it is not in the archive.
        RemoteProtocolError: if some of it does not hold.
    """
    terms = EvidenceTerms(run_id=dossier.run_id, num_stages=len(rules.costs_ppm), epoch=record.payload.epoch)
    known: dict[bytes, Witnessed] = {}
    for name in map(Digest, record.payload.evidence):
        if name not in shown:
            shown[name] = _shown(dossier, name, terms, known)
        known.update({one.record.envelope_bytes: one for one in shown[name][1]})
    return join_evidence([shown[Digest(name)] for name in record.payload.evidence], dossier.run_id)


def _shown(dossier: Dossier, name: Digest, terms: EvidenceTerms, known: Mapping[bytes, Witnessed]) -> Shown:
    commitment, listed = dossier.commitments.get(name), dossier.lists.get(name)
    if commitment is None or listed is None:
        raise MissingEvidenceError("evidence-missing", f"expected the evidence {name.hex()[:16]}, got none")
    missing = [one for one in listed.records if one not in dossier.loss_records]
    if missing:
        reason = f"expected {len(listed.records)} loss records by {commitment.signer}, got {len(missing)} fewer"
        raise MissingEvidenceError("evidence-missing", reason)
    envelopes = [dossier.loss_records[Digest(one)] for one in listed.records]
    return commitment, open_evidence(commitment, envelopes, terms, known)


def compare(record: Verified[ScoreRecord], evidence: JoinedEvidence, rules: ScoringRules) -> list[Failure]:
    """Return where a record says something else than its evidence."""
    failures = []
    mean_loss = mean_loss_micronats(evidence)
    if mean_loss != record.payload.mean_loss_micronats:
        failures.append(_wrong(record, "mean loss", mean_loss, record.payload.mean_loss_micronats))
    parts = attributions_of(record, evidence, rules)
    for row in record.payload.rows:
        peer_id = PeerId(row.peer_id)
        expected = parts.pop(peer_id, Attribution())
        for name, right, said in _fields(row, expected, evidence.shown_ppm(peer_id)):
            if right != said:
                failures.append(_wrong(record, f"{name} of {peer_id}", right, said))
    left_out = [peer_id for peer_id in parts if peer_id != record.signer]
    failures += [_wrong(record, f"row of {peer_id}", "one", "none") for peer_id in left_out]
    return failures


def attributions_of(
    record: Verified[ScoreRecord], evidence: JoinedEvidence, rules: ScoringRules
) -> dict[PeerId, Attribution]:
    """Return everybody's part in a record's evidence, without tails whose replay failed by the record's own word."""
    return attribute(evidence, rules, failed_replays(record))


def failed_replays(record: Verified[ScoreRecord]) -> frozenset[PeerId]:
    """Return the peers whose replay failed by the record's own word."""
    return frozenset(PeerId(row.peer_id) for row in record.payload.rows if row.findings.replay == "failed")


def compare_faults(record: Verified[ScoreRecord], dossier: Dossier) -> list[Failure]:
    """Return where a record counts other faults than the proofs that it names show.

    A proof that it does not name may have been found too late for it, so that is no failure: `audit explain` shows
    those, and a validator that leaves them out on purpose does not move the median.
    """
    named = [Digest(name) for name in record.payload.proofs]
    proved = [dossier.convictions[name] for name in named if name in dossier.convictions]
    missing = len(named) - len(proved)
    if missing:
        reason = f"expected {len(named)} proofs of faults, got {missing} fewer"
        return [Failure(Check.MISSING, subject_of(record), "proof-missing", reason, record.signer)]
    charges = {one.charge for one in proved if one.epoch == record.payload.epoch}
    counts = Counter(charge.guilty for charge in charges)
    return [
        _wrong(record, f"number of faults of {row.peer_id}", counts[PeerId(row.peer_id)], row.findings.faults)
        for row in record.payload.rows
        if counts[PeerId(row.peer_id)] != row.findings.faults
    ]


def compare_steps(record: Verified[ScoreRecord], evidence: JoinedEvidence, dossier: Dossier) -> list[Failure]:
    """Return where a record takes away for old weights, and what peers signed of their weights does not bear it out.

    That it takes nothing away is no failure: a contribution may have come too late for it, as a proof may.
    """
    borne_out = synchronisation_of(dossier.contributions, evidence, record.payload.epoch)
    return [
        _wrong(record, f"synchronisation of {row.peer_id}", right, row.findings.synchronisation_ppm)
        for row in record.payload.rows
        if row.findings.synchronisation_ppm < (right := borne_out.get(PeerId(row.peer_id), PPM))
    ]


def _fields(row: ScoreRow, expected: Attribution, shown_ppm: int) -> Sequence[tuple[str, int, int]]:
    found = row.findings
    return (
        ("work", expected.work, found.work),
        ("number of records", expected.num_records, found.num_records),
        ("clasp effect", expected.harm.effect, found.clasp_effect),
        ("clasp lower bound", expected.harm.low, found.clasp_low),
        ("clasp upper bound", expected.harm.high, found.clasp_high),
        ("evidence shown", shown_ppm, found.evidence_ppm),
    )


def _wrong(record: Verified[ScoreRecord], what: str, right: object, said: object) -> Failure:
    reason = f"expected {right} as {what}, got {said}"
    return Failure(Check.RECOMPUTED, subject_of(record), "score-evidence", reason, record.signer)
