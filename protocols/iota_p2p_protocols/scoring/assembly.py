"""A validator's table: what the evidence says of every peer, joined with what the validator saw of it itself."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.scoring.attribution import Attribution, attribute, mean_loss_micronats
from iota_p2p_protocols.scoring.combination import Findings, Replay, ScoringRules, combine
from iota_p2p_protocols.scoring.conviction import Charge
from iota_p2p_protocols.scoring.evidence import JoinedEvidence
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.score_record import MAX_ROWS, ScoreRow


@dataclass(frozen=True, slots=True)
class Observation:
    """What a validator saw of a peer itself; nobody can recompute it, so it can only take away.

    Attributes:
        replay: what replaying its work showed.
        faults: what is proved against it, each charge once.
        presence_ppm, synchronisation_ppm: see `fast_checks`.
    """

    replay: Replay = "not-drawn"
    faults: int = 0
    presence_ppm: int = PPM
    synchronisation_ppm: int = PPM


def with_faults(seen: Mapping[PeerId, Observation], proved: Iterable[Charge]) -> dict[PeerId, Observation]:
    """Return what a validator saw, and with it what is proved: each charge counts once."""
    counts = Counter(charge.guilty for charge in proved)
    guilty = {peer_id: replace(seen.get(peer_id, Observation()), faults=count) for peer_id, count in counts.items()}
    return {**seen, **guilty}


def score_rows(
    evidence: JoinedEvidence, seen: Mapping[PeerId, Observation], rules: ScoringRules, validator: PeerId
) -> tuple[ScoreRow, ...]:
    """Return the rows of a validator's record: all peers in evidence and all it saw, but for itself.

    Above MAX_ROWS those with the least work are left out: they would earn the least.
    """
    failed = {peer_id for peer_id, saw in seen.items() if saw.replay == "failed"} - {validator}
    parts = attribute(evidence, rules, failed)
    mean_loss = mean_loss_micronats(evidence)
    epoch = evidence.records[0].record.payload.microbatch.epoch if evidence.records else 0
    rows = []
    for peer_id in parts.keys() | seen.keys():
        part, saw = parts.get(peer_id, Attribution()), seen.get(peer_id, Observation())
        findings = Findings(
            work=part.work,
            num_records=part.num_records,
            clasp_effect=part.harm.effect,
            clasp_low=part.harm.low,
            clasp_high=part.harm.high,
            replay=saw.replay,
            faults=saw.faults,
            evidence_ppm=evidence.shown_ppm(peer_id),
            presence_ppm=saw.presence_ppm,
            synchronisation_ppm=saw.synchronisation_ppm,
        )
        if peer_id != validator:
            rows.append(ScoreRow(peer_id=peer_id, findings=findings, score=combine(findings, epoch, mean_loss, rules)))
    kept = sorted(rows, key=lambda row: (-row.findings.work, row.peer_id))[:MAX_ROWS]
    return tuple(sorted(kept, key=lambda row: peer_id_to_bytes(PeerId(row.peer_id))))
