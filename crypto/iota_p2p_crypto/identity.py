"""Ed25519 identities whose peer id is exactly what libp2p derives from the key.

A peer id is the identity multihash of the public key's protobuf form, in base58btc (libp2p peer-ids spec); for
Ed25519 it always starts with `12D3KooW`. The key is inside the id, so a signature is checked with nothing but
the id of its signer.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

import base58
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from iota_p2p_crypto.errors import InvalidSignatureError, LocalProtocolError, MalformedError

PeerId = NewType("PeerId", str)

SEED_BYTES = 32  # RFC 8032 private key
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
# libp2p crypto.proto: Type = Ed25519 (08 01), Data of 32 public or 64 private bytes (12 len).
_PUBLIC_KEY_PREFIX = bytes.fromhex("08011220")
_PRIVATE_KEY_PREFIX = bytes.fromhex("08011240")
_IDENTITY_MULTIHASH_PREFIX = bytes.fromhex("0024")  # code 0 (identity), 36 bytes follow
_PEER_ID_PREFIX = _IDENTITY_MULTIHASH_PREFIX + _PUBLIC_KEY_PREFIX
# Base58 in Python costs 10 us, a sixth of a signature check, for peers met again and again. 2 MB at most.
_PEER_ID_CACHE_SIZE = 8192


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A private key with the public key and peer id derived from it.

    Build one with `from_seed`; the fields are not checked against each other.
    """

    seed: bytes
    public_key: bytes
    peer_id: PeerId

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """Derive the identity of a 32-byte seed, which must come from a good random source."""
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"expected a seed of {SEED_BYTES} bytes, got {len(seed)}")
        public_key, _ = crypto_sign_seed_keypair(seed)
        return cls(seed, public_key, peer_id_of(public_key))

    def __repr__(self) -> str:
        """Name the identity without showing its secret."""
        return f"Identity({self.peer_id})"

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032, deterministic) of a message."""
        return crypto_sign(message, self.seed + self.public_key)[:SIGNATURE_BYTES]

    def libp2p_private_key(self) -> bytes:
        """Return the private key in libp2p's protobuf form, as the daemon's `-id` file wants it."""
        return _PRIVATE_KEY_PREFIX + self.seed + self.public_key


def peer_id_of(public_key: bytes) -> PeerId:
    """Return the libp2p peer id of a 32-byte Ed25519 public key."""
    return PeerId(base58.b58encode(_PEER_ID_PREFIX + public_key).decode("ascii"))


def public_key_of(peer_id: PeerId) -> bytes:
    """Return the Ed25519 public key inside a peer id.

    Raises:
        MalformedError: if the text is not the canonical id of an Ed25519 key.
    """
    return peer_id_to_bytes(peer_id)[len(_PEER_ID_PREFIX) :]


@lru_cache(_PEER_ID_CACHE_SIZE)
def peer_id_to_bytes(peer_id: PeerId) -> bytes:
    """Return the 38-byte multihash behind a peer id; raises MalformedError as `public_key_of` does."""
    try:
        raw = base58.b58decode(peer_id.encode("ascii")) if len(peer_id) <= 2 * len(_PEER_ID_PREFIX) + 64 else b""
    except (ValueError, UnicodeEncodeError) as error:
        raise MalformedError("peer-id", f"expected a base58 peer id, got {peer_id!r:.80}") from error
    if len(raw) != len(_PEER_ID_PREFIX) + PUBLIC_KEY_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        raise MalformedError("peer-id", f"expected an Ed25519 peer id (12D3KooW...), got {peer_id!r:.80}")
    if base58.b58encode(raw).decode("ascii") != peer_id:
        raise MalformedError("peer-id", f"expected a peer id in canonical base58, got {peer_id!r:.80}")
    return raw


@lru_cache(_PEER_ID_CACHE_SIZE)
def peer_id_from_bytes(raw: bytes) -> PeerId:
    """Return the peer id of a 38-byte multihash, as the daemon and our envelopes carry it.

    Raises:
        MalformedError: if the bytes are not an Ed25519 peer id.
    """
    if len(raw) != len(_PEER_ID_PREFIX) + PUBLIC_KEY_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        raise MalformedError("peer-id", f"expected the 38 bytes of an Ed25519 peer id, got {raw[:40].hex()}")
    return PeerId(base58.b58encode(raw).decode("ascii"))


def parse_peer_id(text: str) -> PeerId:
    """Check a peer id that came from outside; raises MalformedError as `public_key_of` does."""
    peer_id_to_bytes(PeerId(text))
    return PeerId(text)


def verify_signature(peer_id: PeerId, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature against the key inside a peer id.

    Raises:
        MalformedError: if the peer id is not one.
        InvalidSignatureError: if the signature does not verify.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignatureError(
            "signature-length", f"expected a signature of {SIGNATURE_BYTES} bytes, got {len(signature)}"
        )
    try:
        crypto_sign_open(signature + message, public_key_of(peer_id))
    except BadSignatureError as error:
        raise InvalidSignatureError("signature", f"expected a valid signature by {peer_id}, got a wrong one") from error
