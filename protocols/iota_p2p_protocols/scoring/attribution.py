"""What an epoch's evidence says of every peer: the work it did, and what its part did to the losses."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.loss_record import MICRONATS_PER_NAT
from iota_p2p_protocols.scoring.clasp import (
    Floats,
    Levels,
    PeerEffects,
    explained_effects,
    stretches,
    trusted_records,
)
from iota_p2p_protocols.scoring.evidence import JoinedEvidence, Witnessed

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


def attribute(
    evidence: JoinedEvidence, costs_ppm: Sequence[int], discredited: Collection[PeerId] = ()
) -> dict[PeerId, Attribution]:
    """Return every peer's part.

    What a tail says of losses goes for nothing if it contradicted itself, is discredited or understates by all signs
    (`clasp.trusted_records`): its records count as work, and nobody is judged by them.

    Args:
        evidence: the epoch's joined evidence.
        costs_ppm: what each stage costs, of the whole model's cost.
        discredited: peers whose replay failed.
    """
    peers = {peer_id for one in evidence.records for peer_id in one.pathway}
    worst = dict.fromkeys(peers, (0, -_MOST_MICRONATS, _MOST_MICRONATS))
    fit = _Fit.of(_believed(evidence, discredited), len(costs_ppm)).trusted()
    for effects, replicas in zip(fit.explained(), fit.replicas, strict=True):
        for level, peer_id in enumerate(replicas):
            found = _in_micronats(effects, level)
            if found[1] > worst[peer_id][1]:
                worst[peer_id] = found
    work, counts = _work(evidence, costs_ppm)
    return {
        peer_id: Attribution(work[peer_id], counts[peer_id], *worst[peer_id])
        for peer_id in sorted(peers, key=peer_id_to_bytes)
    }


def understating_tails(evidence: JoinedEvidence, num_stages: int) -> frozenset[PeerId]:
    """Return the tails that understate by all signs, for whoever replays work."""
    fit = _Fit.of(_believed(evidence, ()), num_stages)
    return fit.tails - fit.trusted().tails


def _believed(evidence: JoinedEvidence, discredited: Collection[PeerId]) -> list[Witnessed]:
    liars = {*discredited, *evidence.contradicted}
    return [one for one in evidence.records if one.pathway[-1] not in liars]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Records in the order of their microbatches' digests, as the estimators want them.

    Attributes:
        records: the records.
        replicas: each stage's peers, in the order of their numbers.
        losses_R: in nats.
        stages: for each stage the number of the peer that did it.
        stretch_R: the stretches of the epoch.
    """

    records: Sequence[Witnessed]
    replicas: Sequence[Sequence[PeerId]]
    losses_R: Floats
    stages: Sequence[Levels]
    stretch_R: Levels

    @classmethod
    def of(cls, records: Sequence[Witnessed], num_stages: int) -> "_Fit":
        """Number the peers of some records."""
        losses_R = np.array([one.record.payload.loss_micronats for one in records]) / MICRONATS_PER_NAT
        replicas, stages = [], []
        for stage in range(num_stages):
            peers = sorted({one.pathway[stage] for one in records}, key=peer_id_to_bytes)
            number = {peer_id: level for level, peer_id in enumerate(peers)}
            replicas.append(peers)
            stages.append(np.array([number[one.pathway[stage]] for one in records], dtype=np.intp))
        times_R = np.array([one.record.payload.time_ms for one in records], dtype=np.int64)
        num_stretches = max(1, min(MAX_STRETCHES, len(records) // _RECORDS_PER_STRETCH))
        return cls(records, replicas, losses_R, stages, stretches(times_R, num_stretches))

    @property
    def tails(self) -> frozenset[PeerId]:
        """Who signed the losses."""
        return frozenset(self.replicas[-1])

    def trusted(self) -> "_Fit":
        """Return the records of tails that do not understate."""
        kept_R = trusted_records(self.losses_R, self.stages, [self.stretch_R])
        if kept_R.all():
            return self
        return _Fit.of([one for one, kept in zip(self.records, kept_R, strict=True) if kept], len(self.stages))

    def explained(self) -> list[PeerEffects]:
        """Return the effects of each stage's peers."""
        return explained_effects(self.losses_R, self.stages, [self.stretch_R])


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
