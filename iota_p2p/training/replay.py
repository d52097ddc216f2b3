"""Replay: from a stage's weights at a cut of its work log, the log and the payloads it names, to its weights later on.

The same code as in training runs in the same order, so on the same platform the result is the same to the last bit.
That also goes for microbatches under way when the epoch began: their forwards stand in its log again. Those under way
at a cut went forward with older weights, which the cut's stash holds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from iota_p2p.model.compute import Held, StageCompute, Weights
from iota_p2p.run.data import RunData
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_protocols.scoring.segments import Segment, versions_of
from iota_p2p_protocols.work_log import Backward, Entry, Forward, WorkLog

FindPayload = Callable[[bytes], bytes | None]


@dataclass(slots=True)
class Replaying:
    """A replay of one segment that is done entry by entry, so that other work can go in between.

    A forward without a backward in the segment changes nothing: it may be left out.

    Attributes:
        compute: the stage of the run's seed (which its fixed tables come from), restored from its state at the
            segment's first moment; changed in place.
        log: what was done, checked as `WorkLog.from_bytes` checks it.
        segment: what of it is to be done.
        data: the run's tokens.
        find: returns a payload by its digest, or None.
        stash: the weights of forwards before the segment that go back in it, by their versions.
    """

    compute: StageCompute
    log: WorkLog
    segment: Segment
    data: RunData
    find: FindPayload
    stash: Mapping[int, Weights] = field(default_factory=dict)
    _held: dict[int, Held] = field(default_factory=dict)
    _num_summed: int = 0
    _entries: Sequence[Entry] = field(init=False)
    _versions: Sequence[int] = field(init=False)
    _goes_back: frozenset[int] = field(init=False)  # forwards whose graphs are needed

    def __post_init__(self) -> None:
        """Note which forwards are gone back through."""
        self._entries, self._versions = self.log.entries, versions_of(self.log)
        some = self._entries[self.segment.first : self.segment.end]
        self._goes_back = frozenset(one.forward for one in some if isinstance(one, Backward))

    def redo(self, position: int) -> Held | bytes | None:
        """Do the next entry of the segment again; return what a forward came to, or the gradient of a backward.

        Raises:
            PeerUnavailableError: if a payload is not there.
            MalformedError, DivergedError: if a payload is not what this stage works on.
        """
        entry = self._entries[position]
        if isinstance(entry, Forward):
            return self._go_forward(entry, position)
        if isinstance(entry, Backward):
            gradient = None if self.compute.stage.is_last else self._found(entry.in_digest)
            held = self._held.pop(entry.forward, None)
            self._num_summed += 1
            return self.compute.backward(held or self._went_forward(entry.forward), gradient)
        self.compute.step(self._num_summed)
        self._num_summed = 0
        return None

    def _go_forward(self, entry: Forward, position: int) -> Held:
        window_BT1, payload = self._input(entry)
        if position not in self._goes_back:
            return self.compute.evaluate(window_BT1, payload)
        held = self._held[position] = self.compute.forward(window_BT1, payload)
        return held

    def _went_forward(self, position: int) -> Held:
        """Run a forward from before the segment, with the weights it had then."""
        entry, version = self._entries[position], self._versions[position]
        assert isinstance(entry, Forward)  # noqa: S101 - a log's backwards name forwards
        return self.compute.forward(*self._input(entry), self.stash[version])

    def _input(self, entry: Forward) -> tuple[torch.Tensor, bytes | None]:
        payload = None if self.compute.stage.is_first else self._found(entry.in_digest)
        return torch.from_numpy(self.data.training_window(entry.microbatch)), payload

    def _found(self, name: bytes) -> bytes:
        payload = self.find(name)
        if payload is None:
            raise PeerUnavailableError(f"expected the payload {name.hex()[:16]} that the log names, got none")
        return payload


def replay(compute: StageCompute, log: WorkLog, data: RunData, find: FindPayload) -> None:
    """Do everything in a log again; raises as `Replaying.redo`."""
    replaying = Replaying(compute, log, Segment(0, 0, len(log)), data, find)
    for position in range(len(log)):
        replaying.redo(position)
