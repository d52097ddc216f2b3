"""Segments: the stretches of a work log that are replayed by themselves.

A log is cut after inner steps, evenly, into at most as many segments as are asked for; where the cuts lie follows from
the log. What a stage is at a cut is its checkpoint there and a *stash*: the weights of those forwards before the cut
whose backward comes after it, which are other ones than the checkpoint's. Who has both, the log and the payloads that
the segment names, gets the checkpoint at the next cut.

The stride is a power of two, so that whoever does the work, and does not know how much more will come, keeps what is
at every so many steps and drops every second one when they grow too many (`stride_of`).
"""

from dataclasses import dataclass
from itertools import pairwise

from iota_p2p_protocols.work_log import Backward, InnerStep, WorkLog

# A segment is between a sixteenth and an eighth of an epoch of many steps: what every peer can be replayed of, every
# epoch, for a tenth of the training (bench/replay.py).
MAX_SEGMENTS = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a log.

    Attributes:
        index: which one, from 0; its checkpoints are those of this index and the next.
        first, end: positions of its entries, the last one left out.
    """

    index: int
    first: int
    end: int


def most_segments(weights_bytes: int, limit_bytes: int) -> int:
    """Return how many segments a stage's logs have at most, so that their states stay below a limit.

    A checkpoint is up to three times the weights (two moments), and a stash mostly as much again.
    """
    return max(1, min(MAX_SEGMENTS, limit_bytes // max(1, 6 * weights_bytes)))


def stride_of(num_steps: int, most: int) -> int:
    """Return how many inner steps lie between two cuts: the smallest power of two that makes no more than `most`."""
    stride = 1
    while num_steps > most * stride:
        stride *= 2
    return stride


def segments_of(log: WorkLog, most: int) -> tuple[Segment, ...]:
    """Return the segments of a log that is complete; what comes after its last step belongs to the last one."""
    steps = [position for position, entry in enumerate(log.entries) if isinstance(entry, InnerStep)]
    stride = stride_of(len(steps), most)
    cuts = [0, *(steps[number - 1] + 1 for number in range(stride, len(steps), stride)), len(log)]
    return tuple(Segment(index, *ends) for index, ends in enumerate(pairwise(cuts)))


def segments_committed(log: WorkLog, most: int, count: int) -> tuple[Segment, ...]:
    """Return the segments of a log of which a peer says that there are so many; nothing if that cannot be.

    Half as many are right, too: who has to commit while a merge still keeps its log open does so to the part that leads
    to the last state it kept, which may be a step too short for the stride it kept states at.
    """
    found = (segments_of(log, limit) for limit in (most, max(1, most // 2)))
    return next((segments for segments in found if len(segments) == count), ())


def versions_of(log: WorkLog) -> tuple[int, ...]:
    """Return for every entry how many inner steps come before it: which of the epoch's weights a forward runs with."""
    versions, count = [], 0
    for entry in log.entries:
        versions.append(count)
        count += isinstance(entry, InnerStep)
    return tuple(versions)


def stashed_versions(log: WorkLog, cut: int) -> tuple[int, ...]:
    """Return the versions of the weights in a cut's stash, rising."""
    versions = versions_of(log)
    crossing = (one.forward for one in log.entries[cut:] if isinstance(one, Backward) and one.forward < cut)
    return tuple(sorted({versions[forward] for forward in crossing}))
