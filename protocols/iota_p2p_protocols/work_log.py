"""Work logs: what one stage of one peer did in one epoch, in order.

Weights depend on the order in which gradients were summed and steps taken, so the order is written down: who has the
stage's first weights of the epoch, the log and the payloads it names, gets the peer's last weights. The log's root is
an RFC 6962 Merkle root over its entries, so that a validator can ask for a stretch of it and check that it is one.

A backward names its forward by position, not by microbatch: the same microbatch comes twice when the caller of the
first attempt died. A backward goes through the weights of its forward, whatever steps lie in between.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeAlias

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.merkle import MerkleTree
from iota_p2p_protocols.errors import LocalProtocolError, MalformedError, OversizedError, RemoteProtocolError
from iota_p2p_protocols.message import Count, DigestField, Message
from iota_p2p_protocols.microbatch import MicrobatchId

# Thirty thousand microbatches there and back, and their steps: more than one stage does in an epoch of hours.
MAX_ENTRIES = 2**16
MAX_LOG_BYTES = MAX_ENTRIES * 200  # a forward has at most 192 bytes, the rest less


class Forward(Message):
    """A forward pass.

    Attributes:
        microbatch: which microbatch.
        in_digest: digest of the payload it worked on; for stage 0 the microbatch's digest.
        again: whether it ran before, in the log of an earlier epoch: what was sent came of that, not of this.
    """

    microbatch: MicrobatchId
    in_digest: DigestField
    again: bool = False


class Backward(Message):
    """A backward pass, whose gradient was added to the stage's.

    Attributes:
        forward: position of its forward pass in this log.
        in_digest: digest of the gradient that came; for the last stage that of its loss record.
    """

    forward: Count
    in_digest: DigestField


class InnerStep(Message):
    """A step of the inner optimizer, which leaves the gradient at zero.

    Attributes:
        number: counts the steps of this epoch from 0.
    """

    number: Count


Entry: TypeAlias = Forward | Backward | InnerStep
_KINDS: dict[str, type[Forward] | type[Backward] | type[InnerStep]] = {
    "backward": Backward,
    "forward": Forward,
    "inner-step": InnerStep,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class WorkLog:
    """Entries that follow from each other; appended to by whoever does the work."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._tree = MerkleTree()
        self._num_steps = 0
        self._open: set[int] = set()  # forwards without a backward

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        """The entries so far."""
        return tuple(self._entries)

    @property
    def root(self) -> Digest:
        """The RFC 6962 root over the entries' canonical bytes."""
        return self._tree.root()

    def append(self, entry: Entry) -> int:
        """Append an entry and return its position.

        Raises:
            LocalProtocolError: if it does not follow from the entries before, or the log is full.
        """
        try:
            self._check(entry)
        except RemoteProtocolError as error:
            raise LocalProtocolError(str(error)) from error
        return self._take(entry)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes of the log, a list of its entries."""
        return canonical.encode([_to_fields(entry) for entry in self._entries])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the log a peer sent; compare its root with the one the peer committed to.

        Raises:
            OversizedError: if it has more than MAX_ENTRIES.
            MalformedError: if it is no log, or an entry does not follow from those before.
        """
        rows = canonical.decode(data, max_bytes=MAX_LOG_BYTES)
        if type(rows) is not tuple:
            raise MalformedError("work-log-form", f"expected a list of entries, got {rows!r:.80}")
        log = cls()
        log._extend(_from_fields(row) for row in rows)
        return log

    def _extend(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._check(entry)
            self._take(entry)

    def _check(self, entry: Entry) -> None:
        # [work-log-length] the log has room
        if len(self._entries) >= MAX_ENTRIES:
            raise OversizedError("work-log-length", f"expected at most {MAX_ENTRIES} entries, got one more")
        # [work-log-forward] a backward belongs to a forward that has none yet
        if isinstance(entry, Backward) and entry.forward not in self._open:
            raise MalformedError("work-log-forward", f"expected an open forward, got position {entry.forward}")
        # [work-log-step] inner steps count from 0
        if isinstance(entry, InnerStep) and entry.number != self._num_steps:
            raise MalformedError("work-log-step", f"expected step {self._num_steps}, got {entry.number}")

    def _take(self, entry: Entry) -> int:
        position = len(self._entries)
        if isinstance(entry, Forward):
            self._open.add(position)
        elif isinstance(entry, Backward):
            self._open.remove(entry.forward)
        else:
            self._num_steps += 1
        self._entries.append(entry)
        self._tree.append(canonical.encode(_to_fields(entry)))
        return position


def _to_fields(entry: Entry) -> canonical.CanonicalValue:
    return {_NAMES[type(entry)]: entry.to_fields()}


def _from_fields(row: Any) -> Entry:
    if type(row) is not dict or len(row) != 1 or (name := next(iter(row))) not in _KINDS:
        raise MalformedError("work-log-form", f"expected one of {', '.join(_KINDS)}, got {row!r:.80}")
    return _KINDS[name].from_fields(row[name])
