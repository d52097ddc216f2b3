"""`audit explain`: why a peer has the score it has, in an epoch or in all, every number with where it comes from."""

from dataclasses import dataclass, field

from iota_p2p.audit.dossier import Dossier
from iota_p2p.audit.recomputation import Shown, attributions_of, evidence_of, failed_replays
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.loss_record import MICRONATS_PER_NAT
from iota_p2p_protocols.scoring.attribution import Attribution, Harm
from iota_p2p_protocols.scoring.combination import Component, Findings, Score, ScoringRules
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.score_record import ScoreRecord

# What would raise a score whose smallest part is this one.
ADVICE: dict[Component, str] = {
    "faults": "a proof names this peer: run the software unchanged, on memory that keeps what it was given",
    "replay": "its work did not replay, or was not shown: keep it up for two epochs, its log ends with the process",
    "evidence": "it showed fewer loss records than it signed: stay up past the epoch's end, and serve all of them",
    "clasp": "losses through it are higher than through its replicas: update the software, check device and memory",
    "synchronisation": "it trained from old weights: stay connected through the merge at the epoch's end",
    "presence": "it was not always there: keep it up, reachable, with a steady connection",
    "none": "nothing is amiss: more work is more score",
}


@dataclass(frozen=True, slots=True)
class Opinion:
    """One validator's row about a peer in one epoch.

    Attributes:
        epoch, validator: whose and when.
        position: number of the record it stands in.
        findings, score: what the row says.
        mean_loss_micronats: what harm is measured against.
        num_evidence: commitments the record rests on.
        agrees: whether the certified score is this one; None without a certified result.
        part: what the evidence says of it, estimator by estimator; None where that is not all here.
    """

    epoch: int
    validator: PeerId
    position: int
    findings: Findings
    score: Score
    mean_loss_micronats: int
    num_evidence: int
    agrees: bool | None
    part: Attribution | None = None


@dataclass(frozen=True, slots=True)
class EpochExplanation:
    """A peer in one epoch.

    Attributes:
        epoch: which.
        opinions: of each validator that scored it.
        certified: score and share of the result; None without one.
        proofs: what is proved against it, each with how many of the validators' records count it.
    """

    epoch: int
    opinions: tuple[Opinion, ...]
    certified: tuple[int, int] | None
    proofs: tuple[tuple[str, int], ...] = ()


def explain(dossier: Dossier, peer_id: PeerId, epoch: int | None = None) -> list[EpochExplanation]:
    """Return what is known of a peer's scores, epoch by epoch; empty if nobody scored it."""
    epochs = {record.payload.epoch for records in dossier.records.values() for record in records}
    found, parts = [], _Parts(dossier)
    for one in sorted(epochs if epoch is None else epochs & {epoch}):
        certified = _certified(dossier, peer_id, one)
        opinions = _opinions(parts, peer_id, one, certified)
        if opinions:
            found.append(EpochExplanation(one, opinions, certified, _proofs(dossier, peer_id, one)))
    return found


def _proofs(dossier: Dossier, peer_id: PeerId, epoch: int) -> tuple[tuple[str, int], ...]:
    """Return what is proved against a peer in an epoch, and how many records name that proof."""
    records = [one for every in dossier.records.values() for one in every if one.payload.epoch == epoch]
    return tuple(
        (f"{proved.charge}: {proved.reason}", sum(name in record.payload.proofs for record in records))
        for name, proved in sorted(dossier.convictions.items())
        if (proved.charge.guilty, proved.epoch) == (peer_id, epoch)
    )


def _certified(dossier: Dossier, peer_id: PeerId, epoch: int) -> tuple[int, int] | None:
    for result in dossier.results.get(epoch, []):
        rows = {row[0]: (row[1], row[2]) for row in result.payload.payouts}
        return rows.get(peer_id, (0, 0))
    return None


@dataclass(slots=True)
class _Parts:
    """What the evidence behind score records says of peers, computed once for all records on the same evidence."""

    dossier: Dossier
    _shown: dict[Digest, Shown] = field(default_factory=dict)
    _known: dict[tuple[object, ...], dict[PeerId, Attribution]] = field(default_factory=dict)

    def of(self, record: Verified[ScoreRecord]) -> dict[PeerId, Attribution]:
        """Return everybody's part; nobody's where evidence is missing or does not hold: `recompute` says which."""
        rules = self.dossier.rules.get(Digest(record.payload.rules))
        key = (record.payload.rules, record.payload.evidence, failed_replays(record))
        if rules is not None and key not in self._known:
            try:
                evidence = evidence_of(self.dossier, record, rules, self._shown)
                self._known[key] = attributions_of(record, evidence, rules)
            except RemoteProtocolError:
                self._known[key] = {}
        return self._known.get(key, {})


def _opinions(parts: _Parts, peer_id: PeerId, epoch: int, certified: tuple[int, int] | None) -> tuple[Opinion, ...]:
    opinions = []
    for validator, records in sorted(parts.dossier.records.items()):
        for record in records:
            rows = {row.peer_id: row for row in record.payload.rows}
            if record.payload.epoch == epoch and peer_id in rows:
                row = rows[peer_id]
                opinions.append(
                    Opinion(
                        epoch,
                        validator,
                        record.payload.position,
                        row.findings,
                        row.score,
                        record.payload.mean_loss_micronats,
                        len(record.payload.evidence),
                        None if certified is None else certified[0] == row.score.score,
                        parts.of(record).get(peer_id),
                    )
                )
    return tuple(opinions)


def lines_of(opinion: Opinion, rules: ScoringRules | None) -> list[str]:
    """Return one opinion for people, the arithmetic written out."""
    found, score = opinion.findings, opinion.score
    mean, harm = opinion.mean_loss_micronats / MICRONATS_PER_NAT, found.clasp_low / MICRONATS_PER_NAT
    effect = found.clasp_effect / MICRONATS_PER_NAT
    tolerated = "" if rules is None else f", tolerated up to {mean * rules.clasp_tolerance_ppm / PPM:.4f}"
    return [
        f"validator {opinion.validator}, record {opinion.position}:",
        f"  score {score.score} = work {found.work} x quality {_share(score.quality_ppm)}",
        f"  work: {found.num_records} loss records in {opinion.num_evidence} pieces of evidence",
        f"  clasp: {effect:+.4f} nats against its replicas, certainly over {harm:+.4f}, of a mean loss of {mean:.4f}"
        + tolerated,
        *_estimates(opinion.part),
        f"  replay: {found.replay}; proofs against it: {found.faults}; evidence shown: {_share(found.evidence_ppm)}",
        f"  presence: {_share(found.presence_ppm)}; synchronisation: {_share(found.synchronisation_ppm)}",
        f"  what decides: {score.reason}. {ADVICE[score.reason][0].upper()}{ADVICE[score.reason][1:]}.",
    ]


def _estimates(part: Attribution | None) -> list[str]:
    """Return what each of CLASP's estimators says; the one with the highest bound is what counts."""
    if part is None:
        return []
    named = {"all records": part.by_records, f"{part.num_pairs} paired visits": part.by_pairs, "both": part.by_both}
    return ["    by " + ", by ".join(f"{name} {_bound(harm)}" for name, harm in named.items())]


def _bound(harm: Harm) -> str:
    if harm == Harm():
        return "nothing certain"
    return f"{harm.effect / MICRONATS_PER_NAT:+.4f}, over {harm.low / MICRONATS_PER_NAT:+.4f}"


def _share(ppm: int) -> str:
    return f"{100 * ppm / PPM:.4g} %"
