"""Decoding edwards25519 points and clearing their cofactor, in plain Python, for public data only.

libsodium does every operation on points of prime order, and all that touch secrets. It refuses points with a
torsion part, which is what a hash read as a point is in seven of eight cases; those are handled here. Nothing in
this module runs in constant time, so no secret may enter it.

Source: RFC 8032 section 5.1 (curve, encoding, decoding, addition in extended coordinates).
"""

FIELD_PRIME = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493  # of the prime-order subgroup, "L" in the RFC
POINT_BYTES = 32
_D = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME  # the curve is -x^2 + y^2 = 1 + D x^2 y^2
_SQRT_MINUS_ONE = pow(2, (FIELD_PRIME - 1) // 4, FIELD_PRIME)
_SIGN_BIT = 1 << 255  # of x, the top bit of an encoding

Affine = tuple[int, int]


def decode_point(encoding: bytes) -> Affine | None:
    """Return (x, y) of a 32-byte encoding, or None if it is not the one encoding of a curve point.

    None is an ordinary answer here: half of all strings are no point, and try-and-increment asks until one is.
    """
    number = int.from_bytes(encoding, "little")
    sign, y = number >> 255, number & (_SIGN_BIT - 1)
    if len(encoding) != POINT_BYTES or y >= FIELD_PRIME:
        return None
    # x^2 = u/v; its root candidate is u v^3 (u v^7)^((p-5)/8), which needs no division (RFC 8032, 5.1.3).
    u = (y * y - 1) % FIELD_PRIME
    v = (_D * y * y + 1) % FIELD_PRIME
    v3 = v * v * v % FIELD_PRIME
    x = u * v3 * pow(u * v3 * v3 * v, (FIELD_PRIME - 5) // 8, FIELD_PRIME) % FIELD_PRIME
    if (v * x * x + u) % FIELD_PRIME == 0:
        x = x * _SQRT_MINUS_ONE % FIELD_PRIME
    if (v * x * x - u) % FIELD_PRIME != 0 or (x == 0 and sign == 1):
        return None
    return (x if x & 1 == sign else FIELD_PRIME - x), y


def encode_point(point: Affine) -> bytes:
    """Return the 32-byte encoding of a point: y, with the lowest bit of x on top."""
    x, y = point
    return (y | (x & 1) << 255).to_bytes(POINT_BYTES, "little")


def clear_cofactor(point: Affine) -> Affine:
    """Return 8 times a point: in the prime-order subgroup, and the identity (0, 1) if the point was of low order."""
    x, y = point
    z = 1
    for _ in range(3):
        # Doubling for a = -1 in projective coordinates, complete for every point of this curve.
        xx, yy, zz = x * x % FIELD_PRIME, y * y % FIELD_PRIME, z * z % FIELD_PRIME
        g = yy - xx
        f = g - 2 * zz
        x, y, z = (
            ((x + y) * (x + y) - xx - yy) * f % FIELD_PRIME,
            g * (-xx - yy) % FIELD_PRIME,
            f * g % FIELD_PRIME,
        )
    inverse = pow(z, -1, FIELD_PRIME)
    return x * inverse % FIELD_PRIME, y * inverse % FIELD_PRIME
