"""What we sign of an epoch's work on a stage: the contribution to its merge."""

from dataclasses import dataclass
from math import floor

from iota_p2p.merge.memory import vector_digest
from iota_p2p.merge.round import Committed, Means
from iota_p2p.training.held_stage import EpochWork, HeldStage
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.message import open_signed, seal_message

LIFETIME_S = 3600


@dataclass(frozen=True, slots=True)
class Origin:
    """What a contribution is a part of.

    Attributes:
        stage: the stage.
        epoch: the epoch that ends.
        base_digest: of the weights that it began with.
        codec: the run's, by name.
        row, num_rows: our row of a grid, of how many.
    """

    stage: int
    epoch: int
    base_digest: Digest
    codec: str
    row: int = 0
    num_rows: int = 1

    @classmethod
    def of(cls, held: HeldStage, codec: str, row: int = 0, num_rows: int = 1) -> "Origin":
        """Return it of a stage's current epoch, whose base must be known."""
        assert held.base_digest is not None  # noqa: S101 - whoever contributes has a base
        return cls(held.index, held.epoch, held.base_digest, codec, row, num_rows)


def sign_contribution(means: Means, origin: Origin, work: EpochWork, committed: Committed) -> Verified[Contribution]:
    """Return our contribution, signed."""
    now_s = floor(means.clock())
    contribution = Contribution(
        run_id=means.run_id,
        sequence=origin.epoch,
        issued_s=now_s,
        expires_s=now_s + LIFETIME_S,
        epoch=origin.epoch,
        stage=origin.stage,
        codec=origin.codec,
        num_values=len(work.theta_W),
        root=committed.commitment.root,
        samples=work.samples,
        base_digest=origin.base_digest,
        log_root=work.log_root,
        end_digest=vector_digest(work.theta_W),
        row=origin.row,
        num_rows=origin.num_rows,
    )
    return open_signed(seal_message(contribution, means.identity), Contribution)
