"""Row means: what one row of a grid came to, as its members certify it to the other rows.

A row's mean is its result blocks end to end in the codec of results, with encoded zeros where a shard was lost. Its
members sign a commitment to it, block by block, and two thirds of them certify it: whoever has the certificate takes
the blocks from anybody. Spec: protocols/spec/grid.md.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.domains import ROW_MEAN, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.codec import MAX_VALUES, num_blocks
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.grid import MAX_ROWS, Seat
from iota_p2p_protocols.butterfly.reduce import counted_samples
from iota_p2p_protocols.butterfly.roster import RosterCertificate, quorum
from iota_p2p_protocols.butterfly.shard_map import draw_shard_map
from iota_p2p_protocols.butterfly.vote import Vote, decided_by
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.message import DigestField

LIFETIME_S = 3600


class RowMean(Vote):
    """What has come of one row.

    Attributes:
        about: as of all votes, which see for the other fields; `samples` are those that count (`counted_samples`).
        row: which row.
        num_rows: of how many.
        num_values: weights of the stage.
        codec: of the contributions; it gives that of results.
        root: of the commitment to the mean's blocks.
    """

    domain: ClassVar[Domain] = ROW_MEAN
    max_lifetime_s: ClassVar[int] = LIFETIME_S
    about = "row"

    row: Annotated[int, Field(ge=0, lt=MAX_ROWS)]
    num_rows: Annotated[int, Field(ge=2, le=MAX_ROWS)]
    num_values: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    codec: Annotated[str, Field(max_length=16)]  # as in a contribution
    root: DigestField

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.row >= self.num_rows or self.codec not in CODECS:
            raise ValueError("row must be one of num_rows, and codec a known one")
        return self

    @property
    def lost_blocks(self) -> frozenset[int]:
        """The blocks without a result."""
        shards = draw_shard_map(Digest(self.roster), len(self.peers), num_blocks(self.num_values)).shards
        return frozenset(block for shard in self.lost if shard < len(shards) for block in shards[shard].blocks)


def row_mean_of(certificate: RosterCertificate, lost: Sequence[int], root: bytes) -> RowMean:
    """Return what a member signs when its row is reduced.

    Args:
        certificate: of the row's roster.
        lost: shards with blocks on which nothing was settled.
        root: of the commitment to the mean.
    """
    first = certificate.contributions[0].payload
    return RowMean(
        **decided_by(certificate, RowMean),
        samples=sum(counted_samples(certificate.samples)),
        lost=tuple(lost),
        row=first.row,
        num_rows=first.num_rows,
        num_values=first.num_values,
        codec=first.codec,
        root=root,
    )


def check_own_row(vote: RowMean, certificate: RosterCertificate) -> None:
    """Check a vote against the roster it names; raises InvalidProofError if it is of another one."""
    # [row-roster] what it says of its roster is true
    if vote != row_mean_of(certificate, vote.lost, vote.root):
        raise InvalidProofError("row-roster", f"expected the mean of {certificate.digest.hex()[:16]}, got another")


def is_row(peers: Collection[str], drawn: Collection[str]) -> bool:
    """Return whether a roster stands for the row that was drawn.

    It has two thirds of those drawn, or else a few of them could speak for it, and few others: nobody can tell how many
    identities somebody has made up. Views differ by a peer or two.
    """
    known = len(set(peers) & set(drawn))
    return known >= quorum(len(drawn)) and len(peers) - known <= max(1, len(drawn) // 4)


def check_other_row(certificate: RowMean, own: RowMean, seat: Seat) -> None:
    """Check another row's mean against ours and against who was drawn for it; raises InvalidProofError."""
    theirs = (certificate.run_id, certificate.epoch, certificate.stage, certificate.num_rows)
    ours = (own.run_id, own.epoch, own.stage, own.num_rows)
    # [row-merge] it is of our merge, and of a row that is not ours
    if theirs != ours or certificate.row == own.row:
        raise InvalidProofError("row-merge", f"expected another row of {ours}, got row {certificate.row} of {theirs}")
    # [row-shape] it is a mean of this stage
    if (certificate.codec, certificate.num_values) != (own.codec, own.num_values):
        raise InvalidProofError("row-shape", f"expected {own.num_values} values as {own.codec}, got others")
    # [row-members] of those that were drawn for it
    if not is_row(certificate.peers, seat.rows[certificate.row]):
        raise InvalidProofError("row-members", f"expected two thirds of row {certificate.row} and few others")


def choose_rows(certificates: Collection[Verified[RowMean]]) -> tuple[Verified[RowMean], ...]:
    """Return the row means that everybody who has these combines, in the order of rows.

    Of two of one row the one of more members, more work, the greater digest. Then those from the base that most
    members began with: differences from different weights have no mean.
    """
    best: dict[int, Verified[RowMean]] = {}
    for one in certificates:
        row = one.payload.row
        if row not in best or _weight(one) > _weight(best[row]):
            best[row] = one
    votes: dict[bytes, tuple[int, int]] = {}
    for one in best.values():
        members, samples = votes.get(one.payload.base_digest, (0, 0))
        votes[one.payload.base_digest] = members + len(one.payload.peers), samples + one.payload.samples
    base = max(votes, key=lambda name: (votes[name], name), default=b"")
    return tuple(one for _, one in sorted(best.items()) if one.payload.base_digest == base)


def _weight(one: Verified[RowMean]) -> tuple[int, int, bytes]:
    return len(one.payload.peers), one.payload.samples, one.digest
