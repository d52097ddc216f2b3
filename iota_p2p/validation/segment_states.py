"""What a stage was at the cuts of its work log, taken while the log grows and nobody knows yet where it will be cut.

At every so many inner steps the checkpoint and the weights of open forwards are kept; when they grow too many, every
second one is dropped and the stride doubles, as `segments.stride_of` does for a log that is complete.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from iota_p2p.model.compute import Weights, weights_bytes
from iota_p2p.training.held_stage import HeldStage
from iota_p2p_protocols.errors import LocalProtocolError
from iota_p2p_protocols.scoring.segments import Segment, segments_of, stashed_versions, stride_of
from iota_p2p_protocols.work_log import InnerStep, WorkLog


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stage after some inner step: its checkpoint, and the weights of open forwards by their versions.

    The weights are the graphs' own: no step changes them any more, and most are never asked for as bytes.
    """

    checkpoint: bytes
    open_weights: Mapping[int, Weights]


@dataclass(frozen=True, slots=True)
class SegmentsKept:
    """A log that no longer grows, and the states at its cuts, as a work commitment names them."""

    log: WorkLog
    checkpoints: tuple[bytes, ...]
    stashes: tuple[bytes, ...]


@dataclass(slots=True)
class SegmentStates:
    """The states of one epoch on one stage.

    Attributes:
        epoch: which epoch.
        start: the checkpoint before the first entry.
        most: segments that the log may have.
        theta_bytes: how long the weights at a checkpoint's end are.
    """

    epoch: int
    start: bytes
    most: int
    theta_bytes: int
    _cuts: dict[int, _Cut] = field(default_factory=dict)  # by inner steps taken

    def stepped(self, held: HeldStage) -> None:
        """Take what a stage is after a step, if the log may be cut there; on the lane."""
        count = held.steps_in_epoch
        stride = stride_of(count, self.most)
        self._cuts = {number: cut for number, cut in self._cuts.items() if number % stride == 0}
        if self.most > 1 and count % stride == 0:
            weights = {version: _on_host(one) for version, one in held.open_weights().items()}
            self._cuts[count] = _Cut(held.compute.checkpoint(), weights)

    def states(self, log: WorkLog, end: bytes) -> SegmentsKept:
        """Return the states at the cuts of a log of ours, or of a part of it, that leads to a checkpoint.

        Of a forward that was not expected to go back any more the weights are gone; the checkpoint's stand in for
        them, which a replay takes for what they are: nearly the same.
        """
        num_steps = sum(isinstance(entry, InnerStep) for entry in log.entries)
        for limit in (self.most, max(1, self.most // 2)):
            stride = stride_of(num_steps, limit)
            cuts = [self._cuts.get(count) for count in range(stride, num_steps, stride)]
            if None not in cuts:
                return self._kept(log, segments_of(log, limit), [cut for cut in cuts if cut is not None], end)
        raise LocalProtocolError(f"expected states for {num_steps} steps, got those after {sorted(self._cuts)}")

    def _kept(self, log: WorkLog, segments: Sequence[Segment], cuts: Sequence[_Cut], end: bytes) -> SegmentsKept:
        checkpoints = (self.start, *(cut.checkpoint for cut in cuts), end)
        stashes = (self._stash(cut, log, one) for cut, one in zip(cuts, segments[1:], strict=True))
        return SegmentsKept(log, checkpoints, tuple(stashes))

    def so_far(self, log: WorkLog) -> SegmentsKept:
        """Return the part of a growing log that leads to the last state we took; without a step, all of it."""
        entries, count = log.entries, max(self._cuts, default=0)
        steps = [position for position, entry in enumerate(entries) if isinstance(entry, InnerStep)]
        part = WorkLog()
        for entry in entries[: steps[count - 1] + 1] if count else entries:
            part.append(entry)
        return self.states(part, self._cuts[count].checkpoint if count else self.start)

    def _stash(self, cut: _Cut, log: WorkLog, segment: Segment) -> bytes:
        stand_in = cut.checkpoint[-self.theta_bytes :]
        known = cut.open_weights
        versions = stashed_versions(log, segment.first)
        return b"".join(weights_bytes(known[one]) if one in known else stand_in for one in versions)


def _on_host(weights: Weights) -> Weights:
    """Return the same tensors, or copies of a device's: its memory is for training."""
    return {name: values.detach().cpu() for name, values in weights.items()}
