"""What a stage was at the cuts of its work log, taken while the log grows and nobody knows yet where it will be cut.

At every so many inner steps the checkpoint and the weights of open forwards are kept; when they grow too many, every
second one is dropped and the stride doubles, as `segments.stride_of` does for a log that is complete.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from iota_p2p.model.compute import weights_bytes
from iota_p2p.training.held_stage import HeldStage
from iota_p2p_protocols.scoring.segments import Segment, stashed_versions, stride_of
from iota_p2p_protocols.work_log import WorkLog


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stage after some inner step: its checkpoint, and the weights of open forwards by their versions."""

    checkpoint: bytes
    open_weights: Mapping[int, bytes]


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
            weights = {version: weights_bytes(one) for version, one in held.open_weights().items()}
            self._cuts[count] = _Cut(held.compute.checkpoint(), weights)

    def checkpoints(self, num_segments: int, end: bytes) -> tuple[bytes, ...]:
        """Return the checkpoints of a complete log with so many segments, whose last one is `end`."""
        inner = [self._cuts[number].checkpoint for number in sorted(self._cuts)[: num_segments - 1]]
        return (self.start, *inner, end)

    def stashes(self, log: WorkLog, segments: tuple[Segment, ...]) -> tuple[bytes, ...]:
        """Return the stash of every cut: the weights that its log asks for, one after the other.

        Of a forward that was not expected to go back any more the weights are gone; the checkpoint's stand in for
        them, which a replay takes for what they are: nearly the same.
        """
        found = []
        for number, segment in zip(sorted(self._cuts), segments[1:], strict=False):
            cut = self._cuts[number]
            stand_in = cut.checkpoint[-self.theta_bytes :]
            versions = stashed_versions(log, segment.first)
            found.append(b"".join(cut.open_weights.get(version, stand_in) for version in versions))
        return tuple(found)
