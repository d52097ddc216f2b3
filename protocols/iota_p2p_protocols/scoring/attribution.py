"""What an epoch's evidence says of every peer: the work it did, and what its part did to the losses."""

from collections import Counter
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
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.evidence import JoinedEvidence, Witnessed
from iota_p2p_protocols.scoring.paired_probes import Pairs, find_pairs, joined, paired_effects

# Stretches of an epoch whose common loss is taken out, while each still holds a few records of every replica.
MAX_STRETCHES = 16
_RECORDS_PER_STRETCH = 8
# What no interval is wider than: a thousand nats, for a peer of which nothing is known.
_MOST_MICRONATS = 10**9


@dataclass(frozen=True, slots=True)
class Harm:
    """What one estimator says of a peer, in millionths of a nat, of the stage where the lower bound is highest.

    Attributes:
        effect: its contrast; 0 for a peer without a replica beside it.
        low, high: the interval; the widest there is for such a peer, or of too few records.
    """

    effect: int = 0
    low: int = -_MOST_MICRONATS
    high: int = _MOST_MICRONATS


@dataclass(frozen=True, slots=True)
class Attribution:
    """One peer's part in an epoch.

    Attributes:
        work: sum over its records of tokens times the cost of the stages it did, in token-ppm.
        num_records: pathways through it.
        num_pairs: of those, how many are one of two visits to the same data.
        by_records: its harm by the losses of all records.
        by_pairs: by differences of two visits to the same data, of its first or its second ones.
        by_both: by all of these, each weighted by its certainty.
    """

    work: int = 0
    num_records: int = 0
    num_pairs: int = 0
    by_records: Harm = Harm()
    by_pairs: Harm = Harm()
    by_both: Harm = Harm()

    @property
    def harm(self) -> Harm:
        """What counts: whichever is the most certain of harm. So nobody hides behind pairs what all records show."""
        return max(self.by_records, self.by_pairs, self.by_both, key=lambda one: one.low)


def mean_loss_micronats(evidence: JoinedEvidence) -> int:
    """Return the mean loss over all records, rounded down; 0 without any."""
    losses = [one.record.payload.loss_micronats for one in evidence.records]
    return sum(losses) // len(losses) if losses else 0


def attribute(
    evidence: JoinedEvidence, rules: ScoringRules, discredited: Collection[PeerId] = ()
) -> dict[PeerId, Attribution]:
    """Return every peer's part.

    What a tail says of losses goes for nothing if it contradicted itself, is discredited or understates by all signs
    (`clasp.trusted_records`): its records count as work, and nobody is judged by them.

    Args:
        evidence: the epoch's joined evidence.
        rules: the run's.
        discredited: peers whose replay failed.
    """
    fit = _Fit.of(_believed(evidence, discredited), len(rules.costs_ppm)).trusted()
    pairs_N2 = find_pairs([one.record.payload.microbatch for one in fit.records], rules.pair_every)
    estimates = (fit.explained(), *fit.paired(pairs_N2))
    together = [joined(stage) for stage in zip(*estimates, strict=True)]
    by_records, by_pairs, by_both = fit.worst(estimates[0]), fit.worst(*estimates[1:]), fit.worst(together)
    visits = [fit.records[position] for position in pairs_N2.ravel().tolist()]
    num_pairs = Counter(peer_id for one in visits for peer_id in set(one.pathway))
    work, counts = _work(evidence, rules.costs_ppm)
    return {
        peer_id: Attribution(
            work[peer_id],
            counts[peer_id],
            num_pairs[peer_id],
            by_records.get(peer_id, Harm()),
            by_pairs.get(peer_id, Harm()),
            by_both.get(peer_id, Harm()),
        )
        for peer_id in sorted(work, key=peer_id_to_bytes)
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
        return cls(records, replicas, losses_R, stages, _stretches([_time_ms(one) for one in records]))

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

    def paired(self, pairs_N2: Pairs) -> tuple[list[PeerEffects], list[PeerEffects]]:
        """Return the effects of each stage's peers on first visits and on second ones."""
        stretch_N = _stretches([_time_ms(self.records[first]) for first in pairs_N2[:, 0]])
        return paired_effects(self.losses_R, self.stages, pairs_N2, [stretch_N])

    def worst(self, *estimates: Sequence[PeerEffects]) -> dict[PeerId, Harm]:
        """Return for each peer what has the highest lower bound, of all estimates and stages."""
        found: dict[PeerId, Harm] = {}
        for effects, replicas in (one for stages in estimates for one in zip(stages, self.replicas, strict=True)):
            for level, peer_id in enumerate(replicas):
                found[peer_id] = max(found.get(peer_id, Harm()), _harm(effects, level), key=lambda one: one.low)
        return found


def _time_ms(one: Witnessed) -> int:
    return one.record.payload.time_ms


def _stretches(times_ms: Sequence[int]) -> Levels:
    num_stretches = max(1, min(MAX_STRETCHES, len(times_ms) // _RECORDS_PER_STRETCH))
    return stretches(np.array(times_ms, dtype=np.int64), num_stretches)


def _harm(effects: PeerEffects, level: int) -> Harm:
    values = (float(effects.contrasts_P[level]), *effects.interval(level))
    return Harm(*(round(min(max(value * MICRONATS_PER_NAT, -_MOST_MICRONATS), _MOST_MICRONATS)) for value in values))


def _work(evidence: JoinedEvidence, costs_ppm: Sequence[int]) -> tuple[Mapping[PeerId, int], Mapping[PeerId, int]]:
    work: dict[PeerId, int] = {}
    counts: dict[PeerId, int] = {}
    for one in evidence.records:
        for peer_id, cost in zip(one.pathway, costs_ppm, strict=True):
            work[peer_id] = work.get(peer_id, 0) + one.record.payload.num_tokens * cost
        for peer_id in set(one.pathway):
            counts[peer_id] = counts.get(peer_id, 0) + 1
    return work, counts
