"""The backward receipts that came to us with gradients in this epoch and the last: what those who sent them signed.

A receipt is about a loss record, and that names one attempt at a microbatch; so whoever has a peer's work log can say
which of its backward passes the receipt is of, and do that again (`iota_p2p.validation.gradient_replay`). Only the
caller has it: the gradient goes no further.
"""

from iota_p2p_crypto.digest import Digest
from iota_p2p_protocols.activation import Answered
from iota_p2p_protocols.work_log import MAX_ENTRIES

# Of one stage and epoch; a log holds fewer backwards. With their keys 30 MB at the very most.
MAX_RETURNS = MAX_ENTRIES


class ReturnStore:
    """Receipts by the epoch of their microbatch, the stage that signed them, and the loss record they are about."""

    def __init__(self) -> None:
        self._receipts: dict[int, dict[int, dict[Digest, bytes]]] = {}

    def add(self, epoch: int, stage: int, answered: Answered) -> None:
        """Keep the receipt of a checked answer."""
        of_stage = self._receipts.setdefault(epoch, {}).setdefault(stage, {})
        if len(of_stage) < MAX_RETURNS:
            of_stage[answered.record.digest] = answered.receipt.envelope_bytes

    def get(self, epoch: int, stage: int, record: bytes) -> bytes | None:
        """Return the envelope of the receipt about a record, or None if none came or it is gone."""
        return self._receipts.get(epoch, {}).get(stage, {}).get(Digest(record))

    def forget_before(self, epoch: int) -> None:
        """Drop those of epochs before this one."""
        self._receipts = {of: kept for of, kept in self._receipts.items() if of >= epoch}
