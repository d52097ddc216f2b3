"""The close machine: when an epoch is over for one peer, and what it tells the others then.

    state, effects = step(state, event, now_s)        # for everything that happens, and a Tick every LOOK_EVERY_S

Sources say every few seconds how many of their microbatches came home. An epoch is over when all together have reached
the target, or when the deadline has passed and something was done, or when more than half of the sources are ahead:
then it is the latest epoch that more than half have reached, however many were missed. All see much the same at much
the same time. Whoever turns over by its own count publishes a close a little later, in an order drawn for the epoch,
unless somebody's close came first: it is for those who had missed the progress.

Nobody is paid by these counts; a source that boasts counts for at most MAX_BOAST times the middle one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import floor
from statistics import median_low
from typing import Any, TypeAlias

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.epoch_close import (
    MAX_EVIDENCE,
    MAX_PROGRESS_BYTES,
    SOURCE_STAGE,
    Close,
    EpochClose,
    Reason,
)
from iota_p2p_protocols.progress import Progress
from iota_p2p_protocols.view import MAX_PEERS

# No source counts for more than so many times the middle one: a boast may make an epoch shorter, but not so short
# that microbatches under way outlive the two epochs in which they are of use.
MAX_BOAST = 4
# Somebody's deadline is believed when so much of it has passed here: peers turn over at different moments.
DEADLINE_SHARE = 0.8
# Progress is counted at every look, not whenever some comes: in a large swarm that would be hundreds of times a second.
LOOK_EVERY_S = 0.5
# Between the closes of two peers that have seen the end themselves: gossip takes less.
PUBLISH_APART_S = 0.25
LIFETIME_S = 600
_TAG = "iota-p2p/close/1"


@dataclass(frozen=True, slots=True)
class CloseRules:
    """The run's rules.

    Attributes:
        run_id: of the run.
        target: microbatches that close an epoch.
        deadline_s: seconds after which it closes regardless.
    """

    run_id: bytes
    target: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """Progress came, or is ours."""

    progress: Verified[Progress]


@dataclass(frozen=True, slots=True)
class Closed:
    """A close came."""

    close: Close


@dataclass(frozen=True, slots=True)
class Live:
    """These are the sources that are there now."""

    sources: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Progressed | Closed | Live | Tick


@dataclass(frozen=True, slots=True)
class TurnOver:
    """Go on to this epoch."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Sign and publish this."""

    close: EpochClose


Effect: TypeAlias = TurnOver | Publish


@dataclass(frozen=True, slots=True)
class Closing:
    """What a peer knows of how far the run is.

    Attributes:
        me: who we are.
        rules: the run's.
        epoch: the one we are in.
        began_s: since when.
        live: the sources that are there.
        counts: their latest progress in this epoch and the next one, by epoch and source.
        reached: the latest epoch that each source has spoken of.
        unpublished: the close that we publish if nobody else does, and when.
    """

    me: PeerId
    rules: CloseRules
    epoch: int
    began_s: float
    live: frozenset[PeerId] = frozenset()
    counts: Mapping[tuple[int, PeerId], Verified[Progress]] = field(default_factory=dict)
    reached: Mapping[PeerId, int] = field(default_factory=dict)
    unpublished: tuple[float, EpochClose] | None = None


Step: TypeAlias = tuple[Closing, tuple[Effect, ...]]
Rule: TypeAlias = Callable[[Closing, Any, float], Step]


def step(closing: Closing, event: Event, now_s: float) -> Step:
    """Take in an event; return what follows and what is to be done. `now_s` is Unix time."""
    return RULES[type(event)](closing, event, now_s)


def microbatches_done(closing: Closing) -> int:
    """Return how many microbatches the live sources have done in this epoch, boasts cut down."""
    counts = [
        0 if progress is None else progress.payload.num_microbatches
        for progress in (closing.counts.get((closing.epoch, source)) for source in closing.live)
    ]
    if len(counts) < 2:  # noqa: PLR2004 - a lone source cannot be compared
        return sum(counts)
    most = MAX_BOAST * (median_low(counts) + 1)
    return sum(min(count, most) for count in counts)


def _progressed(closing: Closing, event: Progressed, _: float) -> Step:
    return _take(closing, event.progress), ()


def _closed(closing: Closing, event: Closed, now_s: float) -> Step:
    """Count again with what a close holds; a deadline is believed when ours is near."""
    close = event.close
    if closing.unpublished is not None and close.epoch >= closing.unpublished[1].epoch:
        closing = replace(closing, unpublished=None)
    if close.epoch < closing.epoch:
        return closing, ()
    for progress in close.evidence:
        closing = _take(closing, progress)
    near_s = closing.began_s + DEADLINE_SHARE * closing.rules.deadline_s
    if close.epoch == closing.epoch and close.reason == "deadline" and now_s >= near_s and microbatches_done(closing):
        return _turn_over(closing, closing.epoch + 1, "somebody's deadline", now_s)
    return _judge(closing, now_s)


def _live(closing: Closing, event: Live, now_s: float) -> Step:
    reached = {source: epoch for source, epoch in closing.reached.items() if source in event.sources}
    return _judge(replace(closing, live=event.sources, reached=reached), now_s)


def _tick(closing: Closing, _: Tick, now_s: float) -> Step:
    return _judge(closing, now_s)


RULES: Mapping[type[Event], Rule] = {Progressed: _progressed, Closed: _closed, Live: _live, Tick: _tick}


def _take(closing: Closing, progress: Verified[Progress]) -> Closing:
    """Remember progress, if it is news from a source of ours, in this epoch or the next one."""
    payload, source = progress.payload, progress.signer
    if payload.stage != SOURCE_STAGE or payload.run_id != closing.rules.run_id:
        return closing
    if source in closing.live:  # which bounds how many there are
        reached = max(payload.epoch, closing.reached.get(source, 0))
        closing = replace(closing, reached={**closing.reached, source: reached})
    key = (payload.epoch, source)
    known = closing.counts.get(key)
    news = known is None or known.payload.sequence < payload.sequence
    room = known is not None or len(closing.counts) < 2 * MAX_PEERS
    if payload.epoch not in (closing.epoch, closing.epoch + 1) or not news or not room:
        return closing
    return replace(closing, counts={**closing.counts, key: progress})


def _judge(closing: Closing, now_s: float) -> Step:
    effects: tuple[Effect, ...] = ()
    if closing.unpublished is not None and now_s >= closing.unpublished[0]:
        effects = (Publish(closing.unpublished[1]),)
        closing = replace(closing, unpublished=None)
    done = microbatches_done(closing)
    ahead = _most_reached(closing)
    if done >= closing.rules.target:
        closing, more = _close(closing, "target", f"{done} of {closing.rules.target} microbatches", now_s)
    elif done and now_s >= closing.began_s + closing.rules.deadline_s:
        closing, more = _close(closing, "deadline", f"deadline of {closing.rules.deadline_s:.0f} s", now_s)
    elif ahead > closing.epoch:
        closing, more = _turn_over(closing, ahead, "more than half of the sources are ahead", now_s)
    else:
        return closing, effects
    return closing, (*effects, *more)


def _most_reached(closing: Closing) -> int:
    """Return the latest epoch that more than half of the sources we hear of have reached."""
    ranked = sorted(closing.reached.values(), reverse=True)
    return ranked[len(ranked) // 2] if ranked else closing.epoch


def _close(closing: Closing, reason: Reason, why: str, now_s: float) -> Step:
    """Turn over by our own count, and get ready to say so."""
    evidence = [progress for (epoch, _), progress in closing.counts.items() if epoch == closing.epoch]
    evidence = [one for one in evidence if one.payload.num_microbatches and _is_short(one)]
    evidence.sort(key=lambda one: (-one.payload.num_microbatches, one.signer))
    chosen = sorted(evidence[:MAX_EVIDENCE], key=lambda one: peer_id_to_bytes(one.signer))
    if chosen:
        close = EpochClose(
            run_id=closing.rules.run_id,
            sequence=closing.epoch,
            issued_s=floor(now_s),
            expires_s=floor(now_s) + LIFETIME_S,
            epoch=closing.epoch,
            reason=reason,
            evidence=tuple(one.envelope_bytes for one in chosen),
        )
        closing = replace(closing, unpublished=(now_s + PUBLISH_APART_S * _place(closing), close))
    return _turn_over(closing, closing.epoch + 1, why, now_s)


def _turn_over(closing: Closing, epoch: int, why: str, now_s: float) -> Step:
    counts = {key: progress for key, progress in closing.counts.items() if key[0] >= epoch}
    return replace(closing, epoch=epoch, began_s=now_s, counts=counts), (TurnOver(epoch, why),)


def _place(closing: Closing) -> int:
    """Return how many are to publish before us: an order that differs from epoch to epoch."""

    def rank(peer_id: PeerId) -> bytes:
        number = closing.epoch.to_bytes(8, "big")
        return tagged_digest(_TAG, closing.rules.run_id, number, peer_id_to_bytes(peer_id))

    return sum(rank(source) < rank(closing.me) for source in closing.live)


def _is_short(progress: Verified[Progress]) -> bool:
    return len(progress.envelope_bytes) <= MAX_PROGRESS_BYTES
