"""Epoch closes: whoever sees first that an epoch is over tells the others, with the progress that shows it.

A close carries no authority. Whoever receives one takes in the progress inside it, which it may have missed, and counts
again by its own rule (`close_machine`); it is the count that closes the epoch. Spec: protocols/spec/butterfly.md.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from iota_p2p_crypto.domains import EPOCH_CLOSE, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.errors import IgnoreError, RejectError, RemoteProtocolError
from iota_p2p_protocols.message import Count, Opener, SignedMessage, open_gossip, open_signed
from iota_p2p_protocols.progress import Progress

Reason = Literal["target", "deadline"]

# The largest counts come first; who has more sources than these adds what it knows itself.
MAX_EVIDENCE = 64
MAX_PROGRESS_BYTES = 480  # an envelope of progress has 420
SOURCE_STAGE = 0  # whose microbatches are counted: each begins at one source


class EpochClose(SignedMessage):
    """Word that an epoch is over.

    Attributes:
        epoch: the epoch that is over.
        reason: `target`, enough microbatches; or `deadline`, time.
        evidence: envelopes of sources' progress, ascending by source.
    """

    domain: ClassVar[Domain] = EPOCH_CLOSE
    max_lifetime_s: ClassVar[int] = 3600

    epoch: Count
    reason: Reason
    evidence: Annotated[
        tuple[Annotated[bytes, Field(max_length=MAX_PROGRESS_BYTES)], ...], Field(min_length=1, max_length=MAX_EVIDENCE)
    ]


@dataclass(frozen=True, slots=True)
class Close:
    """A close and the progress in it, checked by `validate_epoch_close`."""

    verified: Verified[EpochClose]
    evidence: tuple[Verified[Progress], ...]

    @property
    def epoch(self) -> int:
        """The epoch that is over."""
        return self.verified.payload.epoch

    @property
    def reason(self) -> Reason:
        """Why."""
        return self.verified.payload.reason


def open_epoch_close(data: bytes, opener: Opener = open_signed) -> Close:
    """Check a close by itself.

    Raises:
        RejectError: if its evidence is of something else or out of order.
        RemoteProtocolError: if it, or something in it, is malformed or does not verify.
    """
    verified = opener(data, EpochClose)
    payload = verified.payload
    evidence = tuple(opener(envelope, Progress) for envelope in payload.evidence)
    # [REJECT] its evidence is progress of this run, epoch, and the sources' stage
    for progress in evidence:
        about = (progress.payload.run_id, progress.payload.epoch, progress.payload.stage)
        if about != (payload.run_id, payload.epoch, SOURCE_STAGE):
            raise RejectError("close-evidence", f"expected progress in epoch {payload.epoch}, got {about[1:]}")
    # [REJECT] each source comes once
    ids = [peer_id_to_bytes(progress.signer) for progress in evidence]
    if any(low >= high for low, high in pairwise(ids)):
        raise RejectError("close-order", "expected sources in order, each once, got others")
    return Close(verified, evidence)


def validate_epoch_close(
    data: bytes, author: PeerId, *, run_id: bytes, epoch: int, now_s: float, opener: Opener = open_signed
) -> Close:
    """Check a close that came by gossip; `epoch` is ours.

    Raises:
        IgnoreError: as `open_gossip`, or if that epoch is over here, too.
        RejectError: as `open_gossip` and `open_epoch_close`.
    """
    verified = open_gossip(data, author, EpochClose, run_id=run_id, now_s=now_s, opener=opener)
    # [IGNORE] it is news
    if verified.payload.epoch < epoch:
        raise IgnoreError("close-epoch", f"expected a close of epoch {epoch} or later, got {verified.payload.epoch}")
    try:
        return open_epoch_close(data, opener)
    except RejectError:
        raise
    except RemoteProtocolError as error:
        raise RejectError(error.rule, str(error)) from error
