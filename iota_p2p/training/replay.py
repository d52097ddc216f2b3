"""Replay: from a stage's first weights of an epoch, its work log and the payloads the log names, to its last weights.

The same code as in training runs in the same order, so on the same platform the result is the same to the last bit.
That also goes for microbatches under way when the epoch began: their forwards stand in its log again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from iota_p2p.model.compute import Held, StageCompute
from iota_p2p.run.data import RunData
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_protocols.work_log import Backward, Entry, Forward, WorkLog

FindPayload = Callable[[bytes], bytes | None]


@dataclass(slots=True)
class Replaying:
    """A replay that is done entry by entry, so that other work can go in between.

    Attributes:
        compute: the stage of the run's seed (which its fixed tables come from), restored from its state at the epoch's
            first moment; changed in place.
        log: what is to be done, checked as `WorkLog.from_bytes` checks it.
        data: the run's tokens.
        find: returns a payload by its digest, or None.
    """

    compute: StageCompute
    log: WorkLog
    data: RunData
    find: FindPayload
    _held: dict[int, Held] = field(default_factory=dict)
    _num_summed: int = 0
    _entries: Sequence[Entry] = field(init=False)
    _goes_back: frozenset[int] = field(init=False)  # forwards whose graphs are needed

    def __post_init__(self) -> None:
        """Note which forwards are gone back through."""
        self._entries = self.log.entries
        self._goes_back = frozenset(one.forward for one in self._entries if isinstance(one, Backward))

    def redo(self, position: int) -> Held | None:
        """Do the next entry of the log again; return what a forward came to.

        Raises:
            PeerUnavailableError: if a payload is not there.
            MalformedError, DivergedError: if a payload is not what this stage works on.
        """
        entry = self._entries[position]
        if isinstance(entry, Forward):
            window_BT1 = torch.from_numpy(self.data.training_window(entry.microbatch))
            payload = None if self.compute.stage.is_first else self._found(entry.in_digest)
            if position not in self._goes_back:
                return self.compute.evaluate(window_BT1, payload)
            held = self._held[position] = self.compute.forward(window_BT1, payload)
            return held
        if isinstance(entry, Backward):
            gradient = None if self.compute.stage.is_last else self._found(entry.in_digest)
            self.compute.backward(self._held.pop(entry.forward), gradient)
            self._num_summed += 1
        else:
            self.compute.step(self._num_summed)
            self._num_summed = 0
        return None

    def _found(self, name: bytes) -> bytes:
        payload = self.find(name)
        if payload is None:
            raise PeerUnavailableError(f"expected the payload {name.hex()[:16]} that the log names, got none")
        return payload


def replay(compute: StageCompute, log: WorkLog, data: RunData, find: FindPayload) -> None:
    """Do everything in a log again; raises as `Replaying.redo`."""
    replaying = Replaying(compute, log, data, find)
    for position in range(len(log)):
        replaying.redo(position)
