"""What peers fetch from each other by digest: a run's spec and its data shards.

Two protocols of `ids`. Nothing here is signed: a spec and a shard are checked by their digests, which the run id and
the spec name. The states of stages are a matter of `state_manifest` and `custody`.

    run spec   SpecRequest -> SpecAnswer, payload the canonical spec
    shard      PieceRequest -> PieceAnswer, payload a piece of the file
"""

from typing import Annotated

from pydantic import Field

from iota_p2p_protocols.errors import MalformedError
from iota_p2p_protocols.ids import RUN_ID_BYTES, SHARD
from iota_p2p_protocols.message import Count, DigestField, Message

RunIdField = Annotated[bytes, Field(min_length=RUN_ID_BYTES, max_length=RUN_ID_BYTES)]

# All pieces of a shard but the last are this long. Only whole pieces can be asked for, so that a request costs who
# asks about as much as who answers, and reads and hashes the shard for it.
PIECE_BYTES = SHARD.max_payload_bytes
# A shard file is 16 MiB at most (`iota_p2p.run.shards`).
MAX_SHARD_BYTES = 16 * 2**20
MAX_PIECES = -(-MAX_SHARD_BYTES // PIECE_BYTES)

# As many as a spec allows layers.
MAX_STAGES = 1024

StageIndex = Annotated[int, Field(ge=0, lt=MAX_STAGES)]


class SpecRequest(Message):
    """Which run are you in?

    Attributes:
        run_id: the run the caller expects; zeros for whatever the other is in.
    """

    run_id: RunIdField


class SpecAnswer(Message):
    """Its run's spec is the payload.

    Attributes:
        epoch: where it believes the run to be.
    """

    epoch: Count


class PieceRequest(Message):
    """A piece of a shard file, please.

    Attributes:
        digest: of the whole file.
        index: of the piece.
    """

    digest: DigestField
    index: Annotated[int, Field(ge=0, lt=MAX_PIECES)]


class PieceAnswer(Message):
    """The piece is the payload.

    Attributes:
        total_bytes: length of the whole file.
    """

    total_bytes: Annotated[int, Field(gt=0, le=MAX_SHARD_BYTES)]


def cut_piece(data: bytes, index: int) -> bytes:
    """Return a shard file's `index`-th piece; raises MalformedError if it has none."""
    part = data[index * PIECE_BYTES : (index + 1) * PIECE_BYTES]
    if not part:
        raise MalformedError("piece-index", f"expected an index within {len(data)} bytes, got {index}")
    return part


def check_piece(answer: PieceAnswer, index: int, num_bytes: int, total_bytes: int) -> None:
    """Check a piece's length against the file's; raises MalformedError.

    What is in it can be checked only when the file is whole.
    """
    if answer.total_bytes != total_bytes:
        raise MalformedError("piece-total", f"expected a shard of {total_bytes} bytes, got {answer.total_bytes}")
    expected = min(PIECE_BYTES, total_bytes - index * PIECE_BYTES)
    if num_bytes != expected:
        raise MalformedError("piece-length", f"expected {expected} bytes in piece {index}, got {num_bytes}")
