"""A verifiable random function: one unpredictable output per (key, input), with a proof anybody can check.

ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381, suite 0x03, under the peer's own Ed25519 key. Validators are elected by
it. Comments cite the RFC's sections. Secret scalars never leave libsodium; the hash-to-curve step works on public
data in plain Python (`edwards25519`).

Stricter than the RFC in one point: Gamma and the public key must lie in the prime-order subgroup, where every
honest one does. The RFC lets a key's owner add torsion to Gamma and still prove the same output; here each output
keeps to one Gamma.
"""

from hashlib import sha512

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)

from iota_p2p_crypto.edwards25519 import GROUP_ORDER, clear_cofactor, decode_point, encode_point
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, MalformedError
from iota_p2p_crypto.identity import Identity, PeerId, public_key_of

PROOF_BYTES = 80  # Gamma 32, challenge 16, response 32
OUTPUT_BYTES = 64  # one SHA-512 digest
_SUITE = b"\x03"
_CHALLENGE_BYTES = 16  # cLen of the suite
_SCALAR_BYTES = 32
_COFACTOR = (8).to_bytes(_SCALAR_BYTES, "little")
_ZERO_SCALAR = bytes(_SCALAR_BYTES)
_IDENTITY_POINT = (0, 1)
_MAX_TRIES = 256  # the counter is one byte; reaching its end has a chance of 2^-256


def prove(identity: Identity, alpha: bytes) -> bytes:
    """Return the 80-byte proof of our output for `alpha` (section 5.1); the same each time."""
    public_key = identity.public_key
    hashed = sha512(identity.seed).digest()
    secret, nonce_key = hashed[:_SCALAR_BYTES], hashed[_SCALAR_BYTES:]
    point = _encode_to_curve(public_key, alpha)
    gamma = crypto_scalarmult_ed25519(secret, point)  # clamps the secret as RFC 8032 does
    nonce = crypto_core_ed25519_scalar_reduce(sha512(nonce_key + point).digest())  # 5.4.2.2
    challenge = _challenge(
        public_key,
        point,
        gamma,
        crypto_scalarmult_ed25519_base_noclamp(nonce),
        crypto_scalarmult_ed25519_noclamp(nonce, point),
    )
    product = crypto_core_ed25519_scalar_mul(_as_scalar(challenge), _clamped(secret))
    return gamma + challenge + crypto_core_ed25519_scalar_add(nonce, product)


def verify(peer_id: PeerId, alpha: bytes, proof: bytes) -> bytes:
    """Check a peer's proof for `alpha` and return its 64-byte output (section 5.3, with key validation).

    Raises:
        MalformedError: if the peer id, its key or the proof does not decode.
        InvalidProofError: if the proof does not hold for this key and input.
    """
    public_key = public_key_of(peer_id)
    if not crypto_core_ed25519_is_valid_point(public_key):  # 5.4.5: a low-order key has predictable outputs
        raise MalformedError("vrf-public-key", f"expected a key of prime order, got {public_key.hex()}")
    gamma, challenge, response = _decode_proof(proof)
    point = _encode_to_curve(public_key, alpha)
    scalar = _as_scalar(challenge)
    # libsodium multiplies by no zero. An honest zero has a chance below 2^-127.
    if _ZERO_SCALAR in (scalar, response):
        raise InvalidProofError("vrf-challenge", "expected a challenge and response other than zero, got zero")
    u = crypto_core_ed25519_sub(
        crypto_scalarmult_ed25519_base_noclamp(response),
        crypto_scalarmult_ed25519_noclamp(scalar, public_key),
    )
    v = crypto_core_ed25519_sub(
        crypto_scalarmult_ed25519_noclamp(response, point),
        crypto_scalarmult_ed25519_noclamp(scalar, gamma),
    )
    expected = _challenge(public_key, point, gamma, u, v)
    if challenge != expected:
        raise InvalidProofError("vrf-challenge", f"expected challenge {expected.hex()}, got {challenge.hex()}")
    return _output(gamma)


def output_of(proof: bytes) -> bytes:
    """Return the 64-byte output inside a proof that was verified, or is our own (section 5.2).

    Raises:
        MalformedError: if the proof does not decode. It proves nothing else: use `verify` for a peer's proof.
    """
    return _output(_decode_proof(proof)[0])


def _decode_proof(proof: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a proof into Gamma, challenge and response, each in its only valid encoding (5.4.4)."""
    if len(proof) != PROOF_BYTES:
        raise MalformedError("vrf-proof-length", f"expected a proof of {PROOF_BYTES} bytes, got {len(proof)}")
    gamma, challenge, response = proof[:32], proof[32:48], proof[48:]
    if not crypto_core_ed25519_is_valid_point(gamma):
        raise MalformedError("vrf-gamma", f"expected a canonical point of prime order, got {gamma.hex()}")
    if int.from_bytes(response, "little") >= GROUP_ORDER:
        raise MalformedError("vrf-response", f"expected a scalar below the group order, got {response.hex()}")
    return gamma, challenge, response


def _encode_to_curve(public_key: bytes, alpha: bytes) -> bytes:
    """Hash the key and input to a point of prime order by try-and-increment (5.4.1.1)."""
    prefix = sha512(_SUITE + b"\x01" + public_key + alpha)
    for counter in range(_MAX_TRIES):
        attempt = prefix.copy()
        attempt.update(bytes((counter, 0)))
        point = decode_point(attempt.digest()[:32])
        if point is not None:
            cleared = clear_cofactor(point)
            if cleared != _IDENTITY_POINT:
                return encode_point(cleared)
    raise LocalProtocolError(f"expected a point within {_MAX_TRIES} tries, got none")


def _challenge(*points: bytes) -> bytes:
    """Hash key, H, Gamma, U and V to the 16-byte challenge (5.4.3)."""
    return sha512(_SUITE + b"\x02" + b"".join(points) + b"\x00").digest()[:_CHALLENGE_BYTES]


def _output(gamma: bytes) -> bytes:
    cleared = crypto_scalarmult_ed25519_noclamp(_COFACTOR, gamma)
    return sha512(_SUITE + b"\x03" + cleared + b"\x00").digest()


def _as_scalar(challenge: bytes) -> bytes:
    return challenge + bytes(_SCALAR_BYTES - _CHALLENGE_BYTES)


def _clamped(secret: bytes) -> bytes:
    """Set the fixed bits of an Ed25519 secret scalar (RFC 8032, 5.1.5)."""
    return bytes((secret[0] & 248,)) + secret[1:31] + bytes(((secret[31] & 127) | 64,))
