"""Custody: who keeps a stage's state besides those who hold the stage, and what is said about it.

A stage could be lost with all of its holders at once, so one of them, its *pusher*, gives its state to peers elsewhere,
its *custodians*: so many that there are `NUM_COPIES` with those of its holders, and one at least. They are drawn by
rendezvous hashing over the live view: whoever has the same view draws the same ones, and a peer that comes or goes
moves few stages. Spec: protocols/spec/state.md.

    CUSTODY   PushRequest + list of chunks -> Wanted, payload the indices that are missing
              PutRequest + chunk           -> {}
              ... and PushRequest again: nothing is missing any more, and the custodian keeps the state
    STATE     StateRequest                 -> StateAnswer, payload the list of chunks
              ChunkRequest                 -> {}, payload the chunk
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.envelope import MAX_OVERHEAD_BYTES, Verified
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.errors import InvalidSignatureError, MalformedError
from iota_p2p_protocols.fetch import RunIdField, StageIndex
from iota_p2p_protocols.framing import Payload
from iota_p2p_protocols.message import DigestField, Message
from iota_p2p_protocols.state_manifest import MAX_CHUNKS, StateManifest

# Holders and custodians together. If a tenth of all peers die in one moment, one stage in 10,000 is lost.
NUM_COPIES = 4
# Of a lone stage.
NUM_CUSTODIANS = NUM_COPIES - 1
# A custodian whose view differs by a few peers is still found among so many.
NUM_CANDIDATES = 2 * NUM_CUSTODIANS
_INDEX_BYTES = 4

# Of a manifest; its payload has some 300 bytes.
ManifestEnvelope = Annotated[bytes, Field(max_length=StateManifest.domain.max_payload_bytes + MAX_OVERHEAD_BYTES)]


class StateRequest(Message):
    """Your state of a stage, please.

    Attributes:
        run_id: of the run.
        stage: which stage.
        kept: False for the state of a stage you hold, frozen now; True for one that you keep for others.
    """

    run_id: RunIdField
    stage: StageIndex
    kept: bool


class StateAnswer(Message):
    """The manifest; the payload is the list of chunks."""

    manifest: ManifestEnvelope


class ChunkRequest(Message):
    """A chunk, please, of whatever state.

    Attributes:
        digest: of the chunk.
    """

    digest: DigestField


class PushRequest(Message):
    """Keep this state for me; the payload is the list of its chunks.

    Attributes:
        manifest: signed by the caller.
    """

    manifest: ManifestEnvelope


class Wanted(Message):
    """The payload holds the indices of the chunks that are missing, 4 bytes big-endian each; none if it is kept."""


class PutRequest(Message):
    """A missing chunk, which is the payload.

    Attributes:
        manifest: digest of the manifest's payload.
        index: of the chunk.
    """

    manifest: DigestField
    index: Annotated[int, Field(ge=0, lt=MAX_CHUNKS)]


def rank(run_id: bytes, stage: int, peers: Iterable[PeerId]) -> Sequence[PeerId]:
    """Return peers in the order in which they are to keep a stage's state."""

    def tag(peer_id: PeerId) -> bytes:
        return tagged_digest("iota-p2p/custodian/1", run_id, stage.to_bytes(4, "big"), peer_id_to_bytes(peer_id))

    return sorted(peers, key=tag)


def custodians(run_id: bytes, stage: int, live: Iterable[PeerId], holders: Iterable[PeerId]) -> Sequence[PeerId]:
    """Return who is to keep the state of a stage with these holders now."""
    held = set(holders)
    # Holders of a popular stage push less per peer than a lone one, and can all be killed, too: one copy always.
    return rank(run_id, stage, set(live) - held)[: max(1, NUM_COPIES - max(1, len(held)))]


def pusher(run_id: bytes, stage: int, holders: Iterable[PeerId]) -> PeerId | None:
    """Return which holder gives the state to the custodians; its replicas need not do it a second time."""
    return next(iter(rank(run_id, stage, holders)), None)


def check_push(manifest: Verified[StateManifest], caller: PeerId) -> None:
    """Check that a caller pushes a state of its own; raises InvalidSignatureError."""
    if manifest.signers != (caller,):
        raise InvalidSignatureError("push-signer", f"expected a manifest by {caller}, got one by {manifest.signers}")


def pack_indices(indices: Sequence[int]) -> bytes:
    """Return the payload of a `Wanted`."""
    return b"".join(index.to_bytes(_INDEX_BYTES, "big") for index in indices)


def open_indices(payload: Payload, num_chunks: int) -> Sequence[int]:
    """Return the indices in a `Wanted`; raises MalformedError unless they ascend and exist."""
    data = bytes(payload)
    if len(data) % _INDEX_BYTES or len(data) > num_chunks * _INDEX_BYTES:
        raise MalformedError("wanted-length", f"expected up to {num_chunks} indices, got {len(data)} bytes")
    indices = [int.from_bytes(data[at : at + _INDEX_BYTES], "big") for at in range(0, len(data), _INDEX_BYTES)]
    if indices != sorted(set(indices)) or (indices and indices[-1] >= num_chunks):
        raise MalformedError("wanted-order", f"expected ascending indices below {num_chunks}, got others")
    return indices


def merit(manifest: StateManifest) -> tuple[int, bool, int, int]:
    """Return how good a state is, greater being better: of a later epoch, certified, later in it, then signed later."""
    return (manifest.epoch, manifest.is_certified, manifest.num_steps, manifest.issued_s)
