"""Commit-reveal: fix a value now, show it later, and let nobody copy it in between.

The digest covers who commits and what for, so that a commitment repeated by another peer, or for another purpose,
cannot be opened by what its author reveals. The salt hides values that could be guessed.
"""

from iota_p2p_crypto.digest import DIGEST_BYTES, Digest, tagged_digest
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, MalformedError, OversizedError
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes

SALT_BYTES = 32  # as hard to guess as the digest is to invert
MAX_VALUE_BYTES = 1 << 16  # seeds, outputs and roots have 32 to 80; larger values are committed by their digest
_TAG = "iota-p2p/commitment/v1"


def commit(peer_id: PeerId, purpose: str, value: bytes, salt: bytes) -> Digest:
    """Return our 32-byte commitment to a value.

    Args:
        peer_id: who commits.
        purpose: what for, with the run and epoch in it: a commitment opens only for the purpose it was made for.
        value: what is fixed, at most MAX_VALUE_BYTES.
        salt: SALT_BYTES from a good random source, used once and kept secret until the reveal.
    """
    if len(salt) != SALT_BYTES or len(value) > MAX_VALUE_BYTES:
        raise LocalProtocolError(
            f"expected a salt of {SALT_BYTES} bytes and at most {MAX_VALUE_BYTES} of value,"
            f" got {len(salt)} and {len(value)}"
        )
    return tagged_digest(_TAG, peer_id_to_bytes(peer_id), purpose.encode("utf-8"), value, salt)


def check_reveal(commitment: bytes, peer_id: PeerId, purpose: str, value: bytes, salt: bytes) -> None:
    """Check what a peer reveals against what it committed to.

    Raises:
        OversizedError: if the value exceeds its bound.
        MalformedError: if the commitment, the salt or the peer id has another form.
        InvalidProofError: if this is not what this peer committed to for this purpose.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise OversizedError("reveal-value", f"expected at most {MAX_VALUE_BYTES} bytes, got {len(value)}")
    if len(salt) != SALT_BYTES or len(commitment) != DIGEST_BYTES:
        raise MalformedError(
            "reveal-length",
            f"expected a salt of {SALT_BYTES} bytes and a commitment of {DIGEST_BYTES},"
            f" got {len(salt)} and {len(commitment)}",
        )
    expected = commit(peer_id, purpose, value, salt)
    if commitment != expected:
        raise InvalidProofError(
            "reveal", f"expected {expected.hex()} as {peer_id}'s commitment, got {commitment.hex()}"
        )
