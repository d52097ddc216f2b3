"""What an epoch's evidence says of every peer: the work it did, and what its part did to the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.loss_record import MICRONATS_PER_NAT
from iota_p2p_protocols.scoring.clasp import PeerEffects, explained_effects, stretches
from iota_p2p_protocols.scoring.evidence import JoinedEvidence

# Stretches of an epoch whose common loss is taken out, while each still holds a few records of every replica.
MAX_STRETCHES = 16
_RECORDS_PER_STRETCH = 8
# What no interval is wider than: a thousand nats, for a peer of which nothing is known.
_MOST_MICRONATS = 10**9


@dataclass(frozen=True, slots=True)
class Attribution:
    """One peer's part in an epoch.

    Attributes:
        work: sum over its records of tokens times the cost of the stages it did, in token-ppm.
        num_records: pathways through it.
        effect, low, high: its contrast and the interval, in millionths of a nat, of the stage where the lower bound
            is highest; 0 and the widest interval for a peer without a replica beside it.
    """

    work: int = 0
    num_records: int = 0
    effect: int = 0
    low: int = -_MOST_MICRONATS
    high: int = _MOST_MICRONATS


def mean_loss_micronats(evidence: JoinedEvidence) -> int:
    """Return the mean loss over all records, rounded down; 0 without any."""
    losses = [one.record.payload.loss_micronats for one in evidence.records]
    return sum(losses) // len(losses) if losses else 0


def attribute(evidence: JoinedEvidence, costs_ppm: Sequence[int]) -> dict[PeerId, Attribution]:
    """Return every peer's part.

    Args:
        evidence: the epoch's joined evidence.
        costs_ppm: what each stage costs, of the whole model's cost.
    """
    peers = {peer_id for one in evidence.records for peer_id in one.pathway}
    worst = dict.fromkeys(peers, (0, -_MOST_MICRONATS, _MOST_MICRONATS))
    for stage, effects in enumerate(_effects(evidence, len(costs_ppm))):
        for level, peer_id in enumerate(_replicas(evidence, stage)):
            found = _in_micronats(effects, level)
            if found[1] > worst[peer_id][1]:
                worst[peer_id] = found
    work, counts = _work(evidence, costs_ppm)
    return {
        peer_id: Attribution(work[peer_id], counts[peer_id], *worst[peer_id])
        for peer_id in sorted(peers, key=peer_id_to_bytes)
    }


def _replicas(evidence: JoinedEvidence, stage: int) -> list[PeerId]:
    return sorted({one.pathway[stage] for one in evidence.records}, key=peer_id_to_bytes)


def _effects(evidence: JoinedEvidence, num_stages: int) -> list[PeerEffects]:
    """Fit each stage's peers and the stretches of the epoch, over records in the order of their digests."""
    records = evidence.records
    if not records:
        return []
    losses_R = np.array([one.record.payload.loss_micronats for one in records]) / MICRONATS_PER_NAT
    factors = []
    for stage in range(num_stages):
        number = {peer_id: level for level, peer_id in enumerate(_replicas(evidence, stage))}
        factors.append(np.array([number[one.pathway[stage]] for one in records], dtype=np.intp))
    times_R = np.array([one.record.payload.time_ms for one in records], dtype=np.int64)
    num_stretches = max(1, min(MAX_STRETCHES, len(records) // _RECORDS_PER_STRETCH))
    return explained_effects(losses_R, factors, [stretches(times_R, num_stretches)])


def _in_micronats(effects: PeerEffects, level: int) -> tuple[int, int, int]:
    low, high = effects.interval(level)
    values = (float(effects.contrasts_P[level]), low, high)
    effect, low_micro, high_micro = (
        round(min(max(value * MICRONATS_PER_NAT, -_MOST_MICRONATS), _MOST_MICRONATS)) for value in values
    )
    return effect, low_micro, high_micro


def _work(evidence: JoinedEvidence, costs_ppm: Sequence[int]) -> tuple[Mapping[PeerId, int], Mapping[PeerId, int]]:
    work: dict[PeerId, int] = {}
    counts: dict[PeerId, int] = {}
    for one in evidence.records:
        for peer_id, cost in zip(one.pathway, costs_ppm, strict=True):
            work[peer_id] = work.get(peer_id, 0) + one.record.payload.num_tokens * cost
        for peer_id in set(one.pathway):
            counts[peer_id] = counts.get(peer_id, 0) + 1
    return work, counts
