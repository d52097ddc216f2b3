"""Progress: how much work each peer says it has done in an epoch, for the run-wide count.

These are claims that everyone adds up to know how far the epoch is; nobody is paid by them. What is paid for is
proved by loss records. Spec: protocols/spec/activation.md.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import PROGRESS, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import IgnoreError, RejectError
from iota_p2p_protocols.loss_record import MAX_LOSS_MICRONATS
from iota_p2p_protocols.message import Count, Opener, SignedMessage, open_gossip, open_signed
from iota_p2p_protocols.microbatch import Stage, live_epochs

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
