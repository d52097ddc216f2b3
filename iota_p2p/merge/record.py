"""What became of one stage's merge, for people, benchmarks and tests."""

from dataclasses import dataclass, field
from typing import Literal

from iota_p2p.merge.encounter import Outcome
from iota_p2p.merge.round import Round
from iota_p2p.run.data import epoch_seed
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.convener import passed_over

# merged: with others. alone: nobody else was there, or nobody answered. fetched: we were left out or new, and took what
# the others agreed on.
How = Literal["merged", "alone", "fetched"]


@dataclass(frozen=True, slots=True)
class MergeRecord:
    """One stage at the end of one epoch.

    Attributes:
        epoch: the epoch that began; the one that ended is the one before.
        stage: which stage.
        how: how we came to the new epoch's first weights.
        theta_digest: of those weights.
        seconds: from the close to the new weights; the stage paused no longer than that.
        roster: digest of the roster certificate's payload.
        members: who took part; in a grid our own row first.
        shards, lost_shards: how many parts the vector had, and how many of them kept their old value.
        matrix: who agreed with whom in our row, a line for each member.
        faults: proofs of what members did wrong (`faults.verify_fault`).
        named: whom they name.
        passed_over: members that contributed and did not convene when it was their turn; no proof of anything.
        bytes_up: payload bytes that we gave to others; bytes_formula: what they should be.
        samples: microbatches that counted.
    """

    epoch: int
    stage: int
    how: How
    theta_digest: Digest
    seconds: float
    roster: Digest | None = None
    members: tuple[PeerId, ...] = ()
    shards: int = 0
    lost_shards: int = 0
    matrix: str = ""
    faults: tuple[bytes, ...] = ()
    named: tuple[PeerId, ...] = ()
    passed_over: tuple[PeerId, ...] = ()
    bytes_up: int = 0
    bytes_formula: int = 0
    samples: int = 0
    clipped: frozenset[int] = field(default_factory=frozenset)


def bytes_formula(round_: Round, num_rows: int = 1) -> int:
    """Return the payload bytes each member gives: 2 W (N-1) / N to reduce and W (N-2) / N to gather, W as encoded.

    In a grid N is its row's members, and it gives the row's mean once to each other row: W (R-1) with R rows.
    """
    count = len(round_.contributors)
    contributed = round_.codec.encoded_bytes(round_.num_values)
    results = round_.result.encoded_bytes(round_.num_values)
    gathered = max(0, results * (count - 2))
    return (2 * contributed * (count - 1) + gathered) // count + results * (num_rows - 1)


def record_of(outcome: Outcome, theta_digest: Digest, seconds: float, bytes_up: int) -> MergeRecord:
    """Return the record of a merge with others."""
    round_, reduction, roster = outcome.round_, outcome.reduction, outcome.certificate.roster.payload
    seed = epoch_seed(roster.run_id, roster.epoch)
    return MergeRecord(
        epoch=round_.epoch + 1,
        stage=round_.stage,
        how="merged",
        theta_digest=theta_digest,
        seconds=seconds,
        roster=round_.roster,
        members=outcome.members,
        shards=sum(bool(shard.blocks) for shard in round_.shard_map.shards),
        lost_shards=reduction.lost_shards,
        matrix=str(reduction.matrix),
        faults=outcome.faults,
        passed_over=passed_over(seed, roster.stage, roster.members, PeerId(roster.convener)),
        bytes_up=bytes_up,
        bytes_formula=bytes_formula(round_, max(1, len(outcome.rows))),
        samples=outcome.samples,
        clipped=reduction.clipped,
    )
