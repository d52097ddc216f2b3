"""Progress: how much work each peer says it has done in an epoch, for the run-wide count.

These are claims that everyone adds up to know how far the epoch is; nobody is paid by them. What is paid for is
proved by loss records. Spec: protocols/spec/activation.md.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import PROGRESS, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import IgnoreError, RejectError
from iota_p2p_protocols.loss_record import MAX_LOSS_MICRONATS, MICRONATS_PER_NAT
from iota_p2p_protocols.message import Count, Opener, SignedMessage, open_gossip, open_signed
from iota_p2p_protocols.microbatch import Stage, live_epochs
from iota_p2p_protocols.view import MAX_PEERS

MAX_ROWS = 2 * MAX_PEERS  # most peers hold one stage; current and previous epoch
MAX_MICROBATCHES = 2**32  # per peer, stage and epoch: a thousand a second for fifty days
MAX_TOKENS = 2**36  # likewise; times the largest loss it stays below 2^63


class Progress(SignedMessage):
    """What a peer has done on one stage since the epoch began.

    Attributes:
        epoch: the epoch.
        stage: the stage.
        num_microbatches: microbatches that went there and back, with a loss record that was checked.
        num_tokens: tokens in them.
        loss_sum_micronats: sum of the loss over those tokens, in millionths of a nat.
    """

    domain: ClassVar[Domain] = PROGRESS
    max_lifetime_s: ClassVar[int] = 3600  # an epoch or two; the epoch is checked besides

    epoch: Count
    stage: Stage
    num_microbatches: Annotated[int, Field(ge=0, le=MAX_MICROBATCHES)]
    num_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    loss_sum_micronats: Count


@dataclass(frozen=True, slots=True)
class Totals:
    """The sum of what peers say they have done."""

    num_microbatches: int
    num_tokens: int
    loss_sum_micronats: int

    @property
    def mean_loss_nats(self) -> float | None:
        """The mean loss per token; None before the first token. For people, not for decisions."""
        return self.loss_sum_micronats / MICRONATS_PER_NAT / self.num_tokens if self.num_tokens else None


class ProgressBoard:
    """The latest progress of every peer on every stage, of the current and the previous epoch."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int, PeerId], Progress] = {}

    def receive(self, progress: Verified[Progress]) -> None:
        """Take in a peer's progress.

        A count may shrink: a peer that was killed comes back with what it had written down.

        Raises:
            IgnoreError: if it is no news, or the board is full.
        """
        payload = progress.payload
        key = (payload.epoch, payload.stage, progress.signer)
        known = self._rows.get(key)
        # [IGNORE] it is newer than the one we have
        if known is not None and payload.sequence <= known.sequence:
            raise IgnoreError("progress-sequence", f"expected over {known.sequence}, got {payload.sequence}")
        # [IGNORE] there is room for one more
        if known is None and len(self._rows) >= MAX_ROWS:
            raise IgnoreError("progress-full", f"expected at most {MAX_ROWS} rows, got one more")
        self._rows[key] = payload

    def forget_before(self, epoch: int) -> None:
        """Drop what is of no use in this epoch."""
        self._rows = {key: row for key, row in self._rows.items() if key[0] in live_epochs(epoch)}

    def done_by(self, peer_id: PeerId, epoch: int, stage: int) -> int:
        """Return how many microbatches a peer says it has done on a stage in an epoch."""
        row = self._rows.get((epoch, stage, peer_id))
        return 0 if row is None else row.num_microbatches

    def totals(self, epoch: int, stage: int) -> Totals:
        """Return what all peers together say they have done on a stage in an epoch."""
        rows = [row for (of, on, _), row in self._rows.items() if (of, on) == (epoch, stage)]
        return Totals(
            sum(row.num_microbatches for row in rows),
            sum(row.num_tokens for row in rows),
            sum(row.loss_sum_micronats for row in rows),
        )


def validate_progress_gossip(
    data: bytes, author: PeerId, *, run_id: bytes, epoch: int, now_s: float, opener: Opener = open_signed
) -> Verified[Progress]:
    """Check a progress message that came by gossip; `epoch` is ours.

    Raises:
        IgnoreError: as `open_gossip`, or if it is of another epoch.
        RejectError: as `open_gossip`, or if no such losses exist.
    """
    verified = open_gossip(data, author, Progress, run_id=run_id, now_s=now_s, opener=opener)
    payload = verified.payload
    # [IGNORE] it is of the current epoch or the one before: peers do not turn over at the same moment
    if payload.epoch not in live_epochs(epoch):
        raise IgnoreError("progress-epoch", f"expected epoch {epoch} or the one before, got {payload.epoch}")
    # [REJECT] its losses are possible
    if payload.loss_sum_micronats > payload.num_tokens * MAX_LOSS_MICRONATS:
        raise RejectError("progress-loss", f"expected at most 100 nats a token, got {payload.loss_sum_micronats}")
    return verified
