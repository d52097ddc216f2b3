"""Work commitments: a peer fixes what it did on one stage in one epoch, before it can know whether that is replayed.

Who has the log under `log_root`, the checkpoint and the stash before one of its segments and the payloads that the
segment names, gets the checkpoint after it (`segments`, `iota_p2p.training.replay`).
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from iota_p2p_crypto.domains import WORK, Domain
from iota_p2p_protocols.message import Count, DigestField, SignedMessage
from iota_p2p_protocols.microbatch import Stage
from iota_p2p_protocols.scoring.segments import MAX_SEGMENTS
from iota_p2p_protocols.work_log import MAX_ENTRIES


class WorkCommitment(SignedMessage):
    """What became of a stage in an epoch.

    Attributes:
        epoch: which epoch.
        stage: which stage.
        log_root: RFC 6962 root over the entries of the work log.
        num_entries: how many they are; without any there is nothing to commit to.
        theta_digest: SHA-256 of the weights that the epoch began with, as a merge certificate names them.
        checkpoints: SHA-256 of the stage's checkpoints: before the first entry, at every cut between two segments, and
            after the last, before a merge.
        stashes: SHA-256 of the stash at every cut.
    """

    domain: ClassVar[Domain] = WORK
    max_lifetime_s: ClassVar[int] = 86_400  # as an evidence commitment's: validators replay within the next epoch

    epoch: Count
    stage: Stage
    log_root: DigestField
    num_entries: Annotated[int, Field(gt=0, le=MAX_ENTRIES)]
    theta_digest: DigestField
    checkpoints: Annotated[tuple[DigestField, ...], Field(min_length=2, max_length=MAX_SEGMENTS + 1)]
    stashes: Annotated[tuple[DigestField, ...], Field(max_length=MAX_SEGMENTS - 1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.stashes) != self.num_segments - 1:
            raise ValueError(f"expected {self.num_segments - 1} stashes, got {len(self.stashes)}")
        return self

    @property
    def num_segments(self) -> int:
        """Return how many segments it has."""
        return len(self.checkpoints) - 1
