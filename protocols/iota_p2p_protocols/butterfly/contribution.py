"""Contributions: what each replica signs of its epoch's work before anybody knows who reduces what.

A contribution commits to the encoded pseudo-gradient block by block and says what it was counted from. It names its
maker's blocks for good: reducers check against its root, and a proof of a fault begins with it. Its name is the digest
of its payload. Spec: protocols/spec/butterfly.md.
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from iota_p2p_crypto.block_commitment import BlockShape
from iota_p2p_crypto.domains import CONTRIBUTION, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols import rendezvous
from iota_p2p_protocols.butterfly.codec import MAX_VALUES
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import IgnoreError, MalformedError
from iota_p2p_protocols.message import Count, DigestField, Opener, SignedMessage, open_gossip, open_signed
from iota_p2p_protocols.microbatch import Stage

MAX_SAMPLES = 2**32  # microbatches of one replica in one epoch, as in `progress`
_MAX_NAME = 16  # characters; the longest codec has 8


class Contribution(SignedMessage):
    """One replica's part in the merge of one stage and epoch.

    Attributes:
        epoch: the epoch that ends.
        stage: the stage.
        codec: how the blocks are encoded, as the run's merge section calls it.
        num_values: weights of the stage.
        root: of the commitment to the encoded blocks.
        samples: microbatches in it.
        base_digest: of the weights that the epoch began with, as in `StateManifest.theta_digest`.
        log_root: root of the work log.
        end_digest: of the replica's own weights at the end of the work log: what a replay must come to.
        row, num_rows: for which row of how many (`grid`); the only one where one roster holds everybody.
    """

    domain: ClassVar[Domain] = CONTRIBUTION
    max_lifetime_s: ClassVar[int] = 3600  # as news; inside a certificate it never dies

    epoch: Count
    stage: Stage
    codec: Annotated[str, Field(max_length=_MAX_NAME)]
    num_values: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    root: DigestField
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)]
    base_digest: DigestField
    log_root: DigestField
    end_digest: DigestField
    row: Annotated[int, Field(ge=0, lt=MAX_MEMBERS)] = 0
    num_rows: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] = 1

    @model_validator(mode="after")
    def _check_row(self) -> Self:
        if self.row >= self.num_rows:
            raise ValueError(f"row must be below num_rows {self.num_rows}, got {self.row}")
        return self

    @model_validator(mode="after")
    def _check_codec(self) -> Self:
        if self.codec not in CODECS:
            raise ValueError(f"codec must be one of {', '.join(sorted(CODECS))}")
        return self

    @property
    def merge(self) -> tuple[bytes, int, int, str, int, int, int]:
        """What all contributions of one roster have in common, besides their base."""
        return self.run_id, self.epoch, self.stage, self.codec, self.num_values, self.row, self.num_rows

    @property
    def shape(self) -> BlockShape:
        """The sizes of what is committed to."""
        codec = CODECS[self.codec]
        return BlockShape(codec.block_bytes, codec.encoded_bytes(self.num_values))


def check_contribution(contribution: Verified[Contribution], *, codec: str, num_values: int) -> None:
    """Check a contribution against what the run makes of its stage; raises MalformedError."""
    payload = contribution.payload
    # [contribution-shape] it is a whole vector of this stage in the run's codec
    if (payload.codec, payload.num_values) != (codec, num_values):
        raise MalformedError(
            "contribution-shape",
            f"expected {num_values} values as {codec}, got {payload.num_values} as {payload.codec}",
        )


def validate_contribution_gossip(
    data: bytes, author: PeerId, *, run_id: bytes, epoch: int, now_s: float, opener: Opener = open_signed
) -> Verified[Contribution]:
    """Check a contribution that came by gossip; `epoch` is ours.

    Raises:
        IgnoreError: as `open_gossip`, or if it is of another epoch.
        RejectError: as `open_gossip`.
    """
    verified = open_gossip(data, author, Contribution, run_id=run_id, now_s=now_s, opener=opener)
    # [IGNORE] it is of an epoch near ours: replicas turn over at different moments
    if abs(verified.payload.epoch - epoch) > 1:
        raise IgnoreError("contribution-epoch", f"expected an epoch near {epoch}, got {verified.payload.epoch}")
    return verified


def meeting_purpose(stage: int) -> str:
    """Return for what a stage's replicas provide, so that they find each other when gossip was missed."""
    return f"merge/{stage}"


def meeting_key(run_id: bytes, epoch: int, stage: int) -> bytes:
    """Return the DHT key of one merge; `epoch` is the one that ends."""
    return rendezvous.key(run_id, meeting_purpose(stage), epoch)
