"""State manifests: a holder's signed word what a stage's state is, chunk by chunk (spec: protocols/spec/state.md).

A state is one safetensors file whose last bytes are the stage's weights, the values of all parameters in the order of
their names. It is cut into chunks, first what comes before the weights (header and optimizer's moments), then the
weights, so that replicas that have merged share all chunks of the second kind. A chunk is named by its SHA-256 and may
come from anybody.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from iota_p2p_crypto.digest import DIGEST_BYTES, Digest, digest
from iota_p2p_crypto.domains import STATE_MANIFEST, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.errors import MalformedError
from iota_p2p_protocols.fetch import StageIndex
from iota_p2p_protocols.framing import Payload
from iota_p2p_protocols.ids import STATE
from iota_p2p_protocols.message import Count, DigestField, SignedMessage, open_message

# All chunks of a section but its last are this long: 1 ms of hashing, a second or two of a home uplink, and small
# enough that the state of a small stage comes from several sources.
CHUNK_BYTES = 2**20
MAX_CHUNKS = STATE.max_payload_bytes // DIGEST_BYTES  # 131,072 chunks, whose list is one payload
# 128 GiB less a chunk, as two sections may each end in a short one: beyond what one machine trains.
MAX_STATE_BYTES = (MAX_CHUNKS - 1) * CHUNK_BYTES
# A state that nobody has trained on for a month is of no use; until then its manifest is as good as on the first day.
LIFETIME_S = 30 * 24 * 3600
NO_CERTIFICATE = bytes(DIGEST_BYTES)


class StateManifest(SignedMessage):
    """What a stage's state is, as somebody who held it says.

    Attributes:
        stage: which stage.
        epoch: in which it was taken.
        num_steps: inner steps it has behind it.
        num_bytes: length of the whole.
        weights_bytes: of those, the last ones, which are the weights.
        chunks_digest: SHA-256 of the digests of all chunks, one after the other.
        theta_digest: SHA-256 of the weights.
        certificate: digest of the merge certificate that names these weights; zeros if none does.
    """

    domain: ClassVar[Domain] = STATE_MANIFEST
    max_lifetime_s: ClassVar[int] = LIFETIME_S

    stage: StageIndex
    epoch: Count
    num_steps: Count
    num_bytes: Annotated[int, Field(gt=0, le=MAX_STATE_BYTES)]
    weights_bytes: Annotated[int, Field(gt=0, le=MAX_STATE_BYTES)]
    chunks_digest: DigestField
    theta_digest: DigestField
    certificate: DigestField

    @model_validator(mode="after")
    def _check_sections(self) -> "StateManifest":
        if self.weights_bytes > self.num_bytes:
            raise ValueError("weights_bytes must not exceed num_bytes")
        return self

    @property
    def num_chunks(self) -> int:
        """How many chunks it has."""
        return _parts(self.num_bytes - self.weights_bytes) + _parts(self.weights_bytes)

    @property
    def is_certified(self) -> bool:
        """Whether it names a merge certificate."""
        return self.certificate != NO_CERTIFICATE

    def span(self, index: int) -> tuple[int, int]:
        """Return where chunk `index` begins and ends; raises MalformedError if there is none."""
        before = self.num_bytes - self.weights_bytes
        if not 0 <= index < self.num_chunks:
            raise MalformedError("chunk-index", f"expected an index below {self.num_chunks}, got {index}")
        if index < _parts(before):
            start, end = index * CHUNK_BYTES, before
        else:
            start, end = before + (index - _parts(before)) * CHUNK_BYTES, self.num_bytes
        return start, min(start + CHUNK_BYTES, end)


def cut(state: bytes, weights_bytes: int) -> Iterator[memoryview]:
    """Yield a state's chunks in order."""
    whole = memoryview(state)
    for section in (whole[: len(state) - weights_bytes], whole[len(state) - weights_bytes :]):
        for start in range(0, len(section), CHUNK_BYTES):
            yield section[start : start + CHUNK_BYTES]


@dataclass(frozen=True, slots=True)
class Listing:
    """A manifest and the list it names: all that fetching a state needs to know of it.

    Attributes:
        manifest: as signed.
        digests: of the chunks, in order.
    """

    manifest: Verified[StateManifest]
    digests: tuple[Digest, ...]

    @property
    def state(self) -> StateManifest:
        """What the manifest says."""
        return self.manifest.payload

    @property
    def name(self) -> Digest:
        """What the listing is called between peers: the digest of its manifest's payload."""
        return self.manifest.digest

    @property
    def packed_digests(self) -> bytes:
        """The list as it travels."""
        return b"".join(self.digests)


def open_listing(envelope: bytes, packed: Payload, *, run_id: bytes, now_s: float) -> Listing:
    """Check a manifest and the list of chunks that came with it.

    Raises:
        RemoteProtocolError: as `open_message`, or `listing_of`.
    """
    return listing_of(open_message(envelope, StateManifest, run_id=run_id, now_s=now_s), packed)


def listing_of(manifest: Verified[StateManifest], packed: Payload) -> Listing:
    """Put a manifest and its list together; raises MalformedError if it is not the list that the manifest names."""
    if len(packed) != manifest.payload.num_chunks * DIGEST_BYTES:
        raise MalformedError(
            "state-digests", f"expected {manifest.payload.num_chunks} digests, got {len(packed)} bytes for them"
        )
    if digest(packed) != manifest.payload.chunks_digest:
        raise MalformedError("state-digests", "expected the list of chunks that the manifest names, got another")
    data = bytes(packed)
    digests = (Digest(data[start : start + DIGEST_BYTES]) for start in range(0, len(data), DIGEST_BYTES))
    return Listing(manifest, tuple(digests))


def check_listing(listing: Listing, stage: int, max_bytes: int, weights_bytes: int) -> None:
    """Check a listing against what a state of this stage can be; nothing else is fetched or kept.

    Raises:
        MalformedError: if it is of another stage, larger than `max_bytes`, or has weights of another length.
    """
    payload = listing.state
    if payload.stage != stage:
        raise MalformedError("state-stage", f"expected the state of stage {stage}, got {payload.stage}")
    if payload.num_bytes > max_bytes or payload.weights_bytes != weights_bytes:
        raise MalformedError(
            "state-size",
            f"expected a state of at most {max_bytes} bytes, {weights_bytes} of them weights, "
            f"got {payload.num_bytes} and {payload.weights_bytes}",
        )


def check_chunk(listing: Listing, index: int, chunk: Payload) -> None:
    """Check a chunk by its length and digest; raises MalformedError."""
    start, end = listing.state.span(index)
    if len(chunk) != end - start:
        raise MalformedError("chunk-length", f"expected {end - start} bytes in chunk {index}, got {len(chunk)}")
    if digest(chunk) != listing.digests[index]:
        name = listing.digests[index].hex()
        raise MalformedError("chunk-digest", f"expected chunk {index} to be {name}, got other bytes")


def _parts(num_bytes: int) -> int:
    return -(-num_bytes // CHUNK_BYTES)
