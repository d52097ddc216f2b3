"""SHA-256 digests, plain and tagged.

Everything hashed for a purpose of its own is hashed under a tag, so that no digest can be taken for another kind:
`tagged_digest(tag, a, b)` hashes the length-prefixed tag and parts, which makes the split into parts unambiguous.
"""

import hashlib
from typing import NewType

Digest = NewType("Digest", bytes)

DIGEST_BYTES = 32
_LENGTH_BYTES = 8  # big-endian; no part is near 2^64 bytes


def digest(data: bytes | bytearray | memoryview) -> Digest:
    """Return the SHA-256 of some bytes: how payloads, shards and envelopes are named."""
    return Digest(hashlib.sha256(data).digest())


def tagged_digest(tag: str, *parts: bytes) -> Digest:
    """Return SHA-256 over the tag and the parts, each prefixed with its length as 8 bytes big-endian."""
    prefixed = [len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in (tag.encode("utf-8"), *parts)]
    return Digest(hashlib.sha256(b"".join(prefixed)).digest())
