"""Paired probes: CLASP's third estimator, from losses of the same data along two drawn pathways.

Every source sends a few of its microbatches a second time, drawn by a secret of its own (`microbatch.SECOND_VISIT`).
The loss of the first visit less that of the second is free of what the data itself does to losses, which is nearly all
of their spread. These differences are fitted as `clasp` fits losses: level (that a second visit finds the data learnt
already, and the weights further on) + one effect per peer of the first visit + one per peer of the second + one per
stretch of the epoch. First visits are judged with what the second ones' peers do taken out, and the other way round.

Why apart? Of a first visit no worker can know that it will be one of two: it is a microbatch like any other. Of a
second one it can. Whoever behaves well on second visits alone is seen in full by the first ones, which a common effect
of both would halve; whoever does harm on second visits alone, to make those of the first look good, by the second.

Sees nothing of stage 0, whose peer, the source, is the same on both visits; and no more than `clasp` of a stage whose
replicas all do the same harm. Assumes honest tails like it. A source can leave second visits out, or choose them by how
the first ones went; all it wins is what is left of the spread (docs/decisions/0306).

Shapes: R records, N pairs, P levels of a factor. Losses in nats.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.scoring.clasp import Floats, Levels, PeerEffects, explained_effects

Pairs = npt.NDArray[np.intp]

_NOTHING = PeerEffects(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), np.zeros(0))


def find_pairs(microbatches: Sequence[MicrobatchId], pair_every: int) -> Pairs:
    """Return which microbatches are two visits to the same data, N x 2 positions, first visits first.

    A source may visit one microbatch of every `pair_every` counters again. Whose records show more has none: nobody
    may have a say in harm that is larger than its share of the work.

    Args:
        microbatches: of one epoch, each once; pairs come in the order of their second visits in it.
        pair_every: of the run; 0 has no pairs.
    """
    firsts = {(one.source, one.counter): position for position, one in enumerate(microbatches) if not one.is_second}
    seconds: dict[str, list[int]] = defaultdict(list)
    for position, one in enumerate(microbatches):
        if one.is_second and pair_every:
            seconds[one.source].append(position)
    allowed = {
        source
        for source, positions in seconds.items()
        if len({microbatches[position].data_counter // pair_every for position in positions}) == len(positions)
    }
    found = [
        (firsts[one.source, one.data_counter], position)
        for position, one in enumerate(microbatches)
        if one.is_second and one.source in allowed and (one.source, one.data_counter) in firsts
    ]
    return np.array(found, dtype=np.intp).reshape(-1, 2)


def paired_effects(
    losses_R: Floats, stages: Sequence[Levels], pairs_N2: Pairs, others: Sequence[Levels] = ()
) -> tuple[list[PeerEffects], list[PeerEffects]]:
    """Return the effects of each stage's peers, P, on first visits, and on second ones.

    Args:
        losses_R: finite losses.
        stages: for each stage the number of the peer that did it, R each, counted from 0 within the stage; those of
            stage 0, of which pairs say nothing, are taken out as one factor of both visits.
        pairs_N2: positions of first and second visits among the records.
        others: further factors of pairs to take out, N each: the stretch of the epoch.
    """
    first_N, second_N = pairs_N2.T
    differences_N = np.subtract(losses_R[first_N], losses_R[second_N])
    by_first, by_second = ([levels_R[visit_N] for levels_R in stages[1:]] for visit_N in (first_N, second_N))
    common = [stages[0][first_N], *others]
    first = explained_effects(differences_N, by_first, [*by_second, *common])
    second = explained_effects(np.negative(differences_N), by_second, [*by_first, *common])
    sizes = [int(levels_R.max(initial=-1)) + 1 for levels_R in stages]
    return [*map(_widened, [_NOTHING, *first], sizes)], [*map(_widened, [_NOTHING, *second], sizes)]


def joined(estimates: Sequence[PeerEffects]) -> PeerEffects:
    """Return what several estimates of the same peers say together, each weighted by the inverse of its variance.

    Those of all records, of first and of second visits err almost independently: data and weights' noise of a pair are
    a `pair_every`-th part of what all records are judged by, and visits are drawn apart.
    """
    weights = [_certainty(one) for one in estimates]
    total_P = _added(weights)
    known_P = total_P > 0

    def weighted(values: Sequence[Floats]) -> Floats:
        sums_P = _added([np.multiply(weight_P, value_P) for weight_P, value_P in zip(weights, values, strict=True)])
        means_P: Floats = np.divide(sums_P, total_P, out=np.zeros_like(total_P), where=known_P)
        return means_P

    errors_P = np.full_like(total_P, np.inf)
    errors_P[known_P] = np.divide(1.0, np.sqrt(total_P[known_P]))
    effects_P = weighted([one.effects_P for one in estimates])
    contrasts_P = weighted([one.contrasts_P for one in estimates])
    return PeerEffects(estimates[0].counts_P, effects_P, contrasts_P, errors_P)


def _certainty(one: PeerEffects) -> Floats:
    """Return each level's inverse variance; 0 where nothing is known, and where nothing is left to vary."""
    squares_P = np.multiply(one.errors_P, one.errors_P)
    certainty_P: Floats = np.divide(1.0, squares_P, out=np.zeros_like(squares_P), where=squares_P > 0)
    return certainty_P


def _added(values: Sequence[Floats]) -> Floats:
    total_P = values[0]
    for value_P in values[1:]:
        total_P = np.add(total_P, value_P)
    return total_P


def _widened(effects: PeerEffects, size: int) -> PeerEffects:
    """Return effects with room for the stage's last peers, should they be in no pair."""
    missing = size - effects.counts_P.size
    return PeerEffects(
        np.concatenate([effects.counts_P, np.zeros(missing, dtype=np.int64)]),
        np.concatenate([effects.effects_P, np.zeros(missing)]),
        np.concatenate([effects.contrasts_P, np.zeros(missing)]),
        np.concatenate([effects.errors_P, np.full(missing, np.inf)]),
    )
