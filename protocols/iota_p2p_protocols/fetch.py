"""What peers fetch from each other by digest: a run's spec, its data shards, and the state of a stage.

Three protocols of `ids`. Nothing here is signed: a spec and a shard are checked by their digests, which the run id
and the spec name; a stage's state is one peer's own, believed only as far as its checks go (spec: design 8).

    run spec   SpecRequest -> SpecAnswer, payload the canonical spec
    shard      PieceRequest -> PieceAnswer, payload a piece of the file
    state      StateRequest -> StateManifest, payload the chunks' digests; then ChunkRequest -> {}, payload a chunk

A state changes while it is sent, so the holder keeps a snapshot of it, which its id names.
"""

from typing import Annotated

from pydantic import Field

from iota_p2p_crypto.digest import DIGEST_BYTES, Digest, digest
from iota_p2p_protocols.errors import MalformedError
from iota_p2p_protocols.framing import Payload
from iota_p2p_protocols.ids import RUN_ID_BYTES, SHARD, STATE
from iota_p2p_protocols.message import Count, DigestField, Message

RunIdField = Annotated[bytes, Field(min_length=RUN_ID_BYTES, max_length=RUN_ID_BYTES)]

# All pieces of a shard but the last are this long. Only whole pieces can be asked for, so that a request costs who
# asks about as much as who answers, and reads and hashes the shard for it.
PIECE_BYTES = SHARD.max_payload_bytes
# A shard file is 16 MiB at most (`iota_p2p.run.shards`).
MAX_SHARD_BYTES = 16 * 2**20
MAX_PIECES = -(-MAX_SHARD_BYTES // PIECE_BYTES)

# All chunks of a state but the last are this long: 3 ms of hashing, and few enough digests for one answer.
CHUNK_BYTES = STATE.max_payload_bytes
MAX_CHUNKS = STATE.max_payload_bytes // DIGEST_BYTES  # 131,072 chunks: a state of 512 GiB, beyond any one machine
MAX_STATE_BYTES = MAX_CHUNKS * CHUNK_BYTES
SNAPSHOT_ID_BYTES = 16
# As many as a spec allows layers.
MAX_STAGES = 1024

StageIndex = Annotated[int, Field(ge=0, lt=MAX_STAGES)]
SnapshotId = Annotated[bytes, Field(min_length=SNAPSHOT_ID_BYTES, max_length=SNAPSHOT_ID_BYTES)]


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


class StateRequest(Message):
    """Freeze your state of a stage for me.

    Attributes:
        run_id: of the run.
        stage: which stage.
    """

    run_id: RunIdField
    stage: StageIndex


class StateManifest(Message):
    """A frozen state; the payload is the digests of its chunks in order.

    Attributes:
        snapshot: its name in the requests that follow.
        stage: which stage.
        epoch: in which it was taken.
        num_steps: inner steps it has behind it.
        num_bytes: length of the whole.
    """

    snapshot: SnapshotId
    stage: StageIndex
    epoch: Count
    num_steps: Count
    num_bytes: Annotated[int, Field(gt=0, le=MAX_STATE_BYTES)]

    @property
    def num_chunks(self) -> int:
        """How many chunks it has."""
        return -(-self.num_bytes // CHUNK_BYTES)


class ChunkRequest(Message):
    """A chunk of a frozen state, please.

    Attributes:
        snapshot: from the manifest.
        index: of the chunk.
    """

    snapshot: SnapshotId
    index: Annotated[int, Field(ge=0, lt=MAX_CHUNKS)]


def cut_piece(data: bytes, index: int) -> bytes:
    """Return a shard file's `index`-th piece; raises MalformedError if it has none."""
    return _cut(data, index, PIECE_BYTES, "piece-index")


def check_piece(answer: PieceAnswer, index: int, num_bytes: int, total_bytes: int) -> None:
    """Check a piece's length against the file's; raises MalformedError.

    What is in it can be checked only when the file is whole.
    """
    if answer.total_bytes != total_bytes:
        raise MalformedError("piece-total", f"expected a shard of {total_bytes} bytes, got {answer.total_bytes}")
    expected = min(PIECE_BYTES, total_bytes - index * PIECE_BYTES)
    if num_bytes != expected:
        raise MalformedError("piece-length", f"expected {expected} bytes in piece {index}, got {num_bytes}")


def digest_of_chunk(data: bytes, index: int) -> Digest:
    """Return the digest of a state's `index`-th chunk."""
    return digest(memoryview(data)[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])


def cut_chunk(data: bytes, index: int) -> bytes:
    """Return a state's `index`-th chunk; raises MalformedError if it has none."""
    return _cut(data, index, CHUNK_BYTES, "chunk-index")


def open_manifest(manifest: StateManifest, payload: bytes, request: StateRequest, max_bytes: int) -> tuple[Digest, ...]:
    """Check an answer against what was asked for and return the chunks' digests in order.

    `max_bytes` is what a state of this stage can have at most: nothing larger is fetched.

    Raises:
        MalformedError: if it is about another stage, larger than that, or has another number of digests.
    """
    if manifest.stage != request.stage:
        raise MalformedError("state-stage", f"expected the state of stage {request.stage}, got {manifest.stage}")
    if manifest.num_bytes > max_bytes:
        raise MalformedError("state-size", f"expected a state of at most {max_bytes} bytes, got {manifest.num_bytes}")
    if len(payload) != manifest.num_chunks * DIGEST_BYTES:
        raise MalformedError(
            "state-digests", f"expected {manifest.num_chunks} digests, got {len(payload)} bytes for them"
        )
    return tuple(Digest(payload[start : start + DIGEST_BYTES]) for start in range(0, len(payload), DIGEST_BYTES))


def check_chunk(manifest: StateManifest, index: int, expected: Digest, chunk: Payload) -> None:
    """Check a chunk by its length and digest; raises MalformedError."""
    length = min(CHUNK_BYTES, manifest.num_bytes - index * CHUNK_BYTES)
    if len(chunk) != length:
        raise MalformedError("chunk-length", f"expected {length} bytes in chunk {index}, got {len(chunk)}")
    if digest(chunk) != expected:
        raise MalformedError("chunk-digest", f"expected chunk {index} to be {expected.hex()}, got other bytes")


def _cut(data: bytes, index: int, part_bytes: int, rule: str) -> bytes:
    part = data[index * part_bytes : (index + 1) * part_bytes]
    if not part:
        raise MalformedError(rule, f"expected an index within {len(data)} bytes, got {index}")
    return part
