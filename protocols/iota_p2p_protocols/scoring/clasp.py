"""CLASP: what each peer does to the loss of the pathways through it (IOTA, 2507.17766, section on attribution).

Two of three estimators over records (pathway, loss). `mean_losses` is the paper's: the mean over all pathways through a
peer. `peer_effects` fits loss = level + one effect per factor, where a factor is a stage's peer or a stretch of the
epoch (which takes out that losses fall); a peer's *contrast* is its effect against the other replicas of its stage.
The third, `paired_probes`, fits the same to differences of losses of the same data.

`explained_effects` goes on from there: a peer whose harm is certain is taken out together with all pathways through it,
and the rest is fitted again. Harm hides harm: with five bad peers of 25 two thirds of all pathways are bad, and what
one of them adds no longer shows (bench/clasp.py measures what this finds and `peer_effects` does not).

The fit is backfitting: factor by factor, each effect becomes the shrunk mean of what the others leave over. It needs
sums in a fixed order, subtractions and divisions only, so it gives the same bits on every platform, which solving a
linear system by a library does not; that is what makes a score recomputable (docs/decisions/0302).

`trusted_records` goes before that: the last stage reports its own losses. Whose are certainly lower than those of every
other replica of it is believed no more: beside a liar the honest ones look bad.

Assumes: losses of honest tails (they are replayed), pathways drawn by nobody's choice, effects that add up. Blind to a
stage whose replicas all do the same harm, and to any harm smaller than its interval. Replicas beside a bad one look
better than they are, so nobody is rewarded for a negative contrast.

Shapes: R records, F factors, P levels of a factor. Losses in nats.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
import numpy.typing as npt

from iota_p2p_protocols.errors import LocalProtocolError

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.intp]

# Records that pull a peer's effect towards none: one, so that a peer with a single record is not believed outright.
# What is only to be taken out, such as stretches, is not held back: what it left would be noise on the peers.
RIDGE = 1.0
# Backfitting halves what is left at every round even where two factors are nearly the same; 64 rounds reach 1e-19.
MAX_ROUNDS = 64
# Nats; a hundredth of the unit in which records state losses.
TOLERANCE = 1e-8
# Standard errors either side of what is certain: 1,000 epochs of 25 honest peers accuse 0.1 of them by chance.
WIDTH = 4.5
# Records beyond those that the fit itself uses up, below which the spread is too uncertain to be certain of anything.
LEAST_FREEDOM = 30
# To be taken out and make harm beside it visible, a peer need only be suspect: one honest peer in a thousand is.
SUSPECT_WIDTH = 3.0
# Suspects are taken out at most so often, the worst of each stage at a time; a million records take 0.3 s each time.
MAX_SUSPICIONS = 16
# Replicas of the last stage that it takes to tell which one is off.
LEAST_TAILS = 3
# Makes a median absolute deviation estimate a standard deviation, for normally distributed values.
_MAD_SCALE = 1.4826


@dataclass(frozen=True, slots=True)
class PeerEffects:
    """What a fit says of the levels of one factor, P of each.

    Attributes:
        counts_P: records of each.
        effects_P: nats that a level adds, against the level of all.
        contrasts_P: its effect less that of the others' middle one; 0 where there is no other.
        errors_P: standard error of the contrast; infinite without a record, another level or LEAST_FREEDOM.
    """

    counts_P: npt.NDArray[np.int64]
    effects_P: Floats
    contrasts_P: Floats
    errors_P: Floats

    def interval(self, level: int) -> tuple[float, float]:
        """Return the confidence interval of one contrast, in nats."""
        contrast, error = float(self.contrasts_P[level]), float(self.errors_P[level])
        return contrast - WIDTH * error, contrast + WIDTH * error


def mean_losses(losses_R: Floats, peers_RS: Levels, num_peers: int) -> Floats:
    """Return the mean loss of the pathways through each peer, P; NaN for one without a record.

    Args:
        losses_R: the losses.
        peers_RS: for every record and stage the peer's number, below `num_peers`.
        num_peers: P.
    """
    sums_P = np.zeros(num_peers)
    counts_P = np.zeros(num_peers, dtype=np.int64)
    for peers_R in peers_RS.T:
        sums_P += np.bincount(peers_R, weights=losses_R, minlength=num_peers)
        counts_P += np.bincount(peers_R, minlength=num_peers)
    means_P: Floats = np.divide(sums_P, counts_P, out=np.full(num_peers, np.nan), where=counts_P > 0)
    return means_P


def z_scores(values_P: Floats) -> Floats:
    """Return how many robust standard deviations each value lies from the median; NaN stays NaN.

    Median and MAD instead of mean and deviation, which many bad peers draw towards themselves (facts, 1).
    """
    known = values_P[~np.isnan(values_P)]
    if not known.size:
        return np.full_like(values_P, np.nan)
    middle = np.median(known)
    spread = _MAD_SCALE * float(np.median(np.abs(np.subtract(known, middle))))
    scores_P: Floats = np.divide(np.subtract(values_P, middle), max(spread, TOLERANCE))
    return scores_P


def peer_effects(losses_R: Floats, stages: Sequence[Levels], others: Sequence[Levels] = ()) -> list[PeerEffects]:
    """Fit the additive model and return the effects of each stage's peers.

    Args:
        losses_R: finite losses.
        stages: for each stage the number of the peer that did it, R each, counted from 0 within the stage.
        others: further factors to take out, likewise: the stretch of the epoch.
    """
    if not np.isfinite(losses_R).all():
        raise LocalProtocolError("expected finite losses, got others")
    factors = [*stages, *others]
    if not losses_R.size:
        return [_nothing() for _ in stages]
    counts = [np.bincount(levels_R) for levels_R in factors]
    ridges = [RIDGE] * len(stages) + [0.0] * len(others)
    effects, rest_R = _backfit(losses_R, factors, counts, ridges)
    freedom = losses_R.size - 1 - sum(count_P.size - 1 for count_P in counts)
    # bincount adds in the order of the records; numpy's own sum may add in another on another processor.
    squares = _sum(np.multiply(rest_R, rest_R))
    # The factors overlap by chance, so each effect is known the less the more of the records they all use up.
    deviation = sqrt(squares / freedom * losses_R.size / freedom) if freedom >= LEAST_FREEDOM else inf
    return [_contrasts(effects[index], counts[index], deviation) for index in range(len(stages))]


def explained_effects(losses_R: Floats, stages: Sequence[Levels], others: Sequence[Levels] = ()) -> list[PeerEffects]:
    """Fit as `peer_effects`; then again and again without the pathways through the worst suspects of each stage.

    In the end everybody who is no suspect is judged by the pathways without any, and each suspect by these and those
    on which it was the only one.
    """
    found = peer_effects(losses_R, stages, others)
    suspects = _suspects(losses_R, stages, others, found)
    passed = [np.isin(one_R, list(levels)) for one_R, levels in zip(stages, suspects, strict=True)]
    num_suspects_R = np.sum(passed, axis=0)
    for stage, levels in enumerate(suspects):
        for level in sorted(levels):
            alone_R = (num_suspects_R == 0) | ((num_suspects_R == 1) & (stages[stage] == level))
            _update(found[stage], _fit_part(losses_R, stages, others, alone_R)[stage], [level])
    if any(suspects):
        for stage, clean in enumerate(_fit_part(losses_R, stages, others, num_suspects_R == 0)):
            _update(
                found[stage], clean, [level for level in range(clean.counts_P.size) if level not in suspects[stage]]
            )
    return found


def trusted_records(losses_R: Floats, stages: Sequence[Levels], others: Sequence[Levels] = ()) -> npt.NDArray[np.bool_]:
    """Return which records come from tails that do not understate, by the level of the last stage.

    Of two tails that differ nobody can say which one is wrong: it takes three.
    """
    kept_R = np.ones(losses_R.size, dtype=bool)
    while kept_R.any():
        level = _understating(_fit_part(losses_R, stages, others, kept_R)[-1])
        if level is None:
            break
        kept_R &= stages[-1] != level
    return kept_R


def _understating(tails: PeerEffects) -> int | None:
    """Return the level whose losses are certainly lower than those of each of several others."""
    present = np.flatnonzero(tails.counts_P)
    if present.size < LEAST_TAILS:
        return None
    lowest, second, *_ = present[np.argsort(tails.effects_P[present], kind="stable")]
    gap = float(tails.effects_P[second] - tails.effects_P[lowest])
    return int(lowest) if gap > WIDTH * float(tails.errors_P[lowest]) else None


def _suspects(
    losses_R: Floats, stages: Sequence[Levels], others: Sequence[Levels], first: Sequence[PeerEffects]
) -> list[set[int]]:
    """Return each stage's suspects, found one after the other in ever cleaner pathways."""
    suspects: list[set[int]] = [set() for _ in stages]
    kept_R = np.ones(losses_R.size, dtype=bool)
    latest = first
    for _ in range(MAX_SUSPICIONS):
        worst = [_worst(effects) for effects in latest]
        if all(level is None for level in worst):
            break
        for stage, level in enumerate(worst):
            if level is not None:
                suspects[stage].add(level)
                kept_R &= stages[stage] != level
        latest = _fit_part(losses_R, stages, others, kept_R)
    return suspects


def _fit_part(
    losses_R: Floats, stages: Sequence[Levels], others: Sequence[Levels], kept_R: npt.NDArray[np.bool_]
) -> list[PeerEffects]:
    return peer_effects(losses_R[kept_R], [one_R[kept_R] for one_R in stages], [one_R[kept_R] for one_R in others])


def _worst(effects: PeerEffects) -> int | None:
    """Return the level whose harm is the most certain, if it is suspect."""
    low_P = np.subtract(effects.contrasts_P, np.multiply(SUSPECT_WIDTH, effects.errors_P))
    return int(np.argmax(low_P)) if low_P.size and low_P.max() > 0 else None


def _update(old: PeerEffects, new: PeerEffects, levels: Iterable[int]) -> None:
    """Take over what another fit says of some levels, where it could compare them with others at all."""
    for level in levels:
        if level < new.counts_P.size and np.isfinite(new.errors_P[level]):
            old.effects_P[level] = new.effects_P[level]
            old.contrasts_P[level] = new.contrasts_P[level]
            old.errors_P[level] = new.errors_P[level]


def stretches(order_R: npt.NDArray[np.int64], num_stretches: int) -> Levels:
    """Cut records into stretches of equal length by an order such as their counters; R numbers from 0."""
    ranks_R = np.empty(order_R.size, dtype=np.intp)
    ranks_R[np.argsort(order_R, kind="stable")] = np.arange(order_R.size)
    return ranks_R * num_stretches // max(1, order_R.size)


def _backfit(
    losses_R: Floats, factors: Sequence[Levels], counts: Sequence[npt.NDArray[np.intp]], ridges: Sequence[float]
) -> tuple[list[Floats], Floats]:
    """Return each factor's effects and what no effect explains."""
    rest_R = np.subtract(losses_R, _sum(losses_R) / losses_R.size)
    effects = [np.zeros(count_P.size) for count_P in counts]
    for _ in range(MAX_ROUNDS):
        largest = 0.0
        for index, (levels_R, count_P) in enumerate(zip(factors, counts, strict=True)):
            effect_P = effects[index]
            sums_P = np.bincount(levels_R, weights=rest_R, minlength=count_P.size)
            # The mean of what is left plus the effect itself, shrunk as if so many records without effect were there.
            kept_P = np.multiply(effect_P, count_P)
            shrunk_P = np.divide(np.add(sums_P, kept_P), np.maximum(np.add(count_P, ridges[index]), 1.0))
            step_P = np.subtract(shrunk_P, effect_P)
            effects[index] = np.add(effect_P, step_P)
            rest_R = np.subtract(rest_R, step_P[levels_R])
            largest = max(largest, float(np.abs(step_P).max(initial=0.0)))
        if largest < TOLERANCE:
            break
    return effects, rest_R


def _contrasts(effect_P: Floats, count_P: npt.NDArray[np.intp], deviation: float) -> PeerEffects:
    """Compare each level with the middle one of the others that have records."""
    present = np.flatnonzero(count_P)
    contrasts_P = np.zeros(effect_P.size)
    errors_P = np.full(effect_P.size, np.inf)
    for level in present:
        rest = present[present != level]
        if rest.size:
            middle = float(np.median(effect_P[rest]))
            contrasts_P[level] = effect_P[level] - middle
            # The others' middle is known at least as well as one typical replica of theirs.
            typical = float(np.median(count_P[rest]))
            errors_P[level] = deviation * sqrt(1 / float(count_P[level]) + 1 / typical)
    return PeerEffects(count_P.astype(np.int64), effect_P, contrasts_P, errors_P)


def _nothing() -> PeerEffects:
    return PeerEffects(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), np.zeros(0))


def _sum(values_R: Floats) -> float:
    return float(np.bincount(np.zeros(values_R.size, dtype=np.intp), weights=values_R)[0])
