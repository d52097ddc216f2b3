"""Work commitments: a peer fixes what it did on one stage in one epoch, before it can know whether that is replayed.

Who has the checkpoint under `start_digest`, the log under `log_root` and the payloads the log names, gets the
checkpoint under `end_digest` (`iota_p2p.training.replay`).
"""

from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import WORK, Domain
from iota_p2p_protocols.message import Count, DigestField, SignedMessage
from iota_p2p_protocols.microbatch import Stage
from iota_p2p_protocols.work_log import MAX_ENTRIES


class WorkCommitment(SignedMessage):
    """What became of a stage in an epoch.

    Attributes:
        epoch: which epoch.
        stage: which stage.
        log_root: RFC 6962 root over the entries of the work log.
        num_entries: how many they are; without any there is nothing to commit to.
        start_digest: SHA-256 of the stage's checkpoint before the first piece of work.
        end_digest: likewise after the last, before a merge.
    """

    domain: ClassVar[Domain] = WORK
    max_lifetime_s: ClassVar[int] = 86_400  # as an evidence commitment's: validators replay within the next epoch

    epoch: Count
    stage: Stage
    log_root: DigestField
    num_entries: Annotated[int, Field(gt=0, le=MAX_ENTRIES)]
    start_digest: DigestField
    end_digest: DigestField
