"""Any bytes decode or are refused; and our encoder is compared with one that is slow and plain."""

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.errors import RemoteProtocolError

ATOMS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=300)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=20).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=20),
    max_leaves=40,
)


def plain_encoding(value: Any) -> bytes:  # noqa: PLR0911  # one return per row of the table
    """The spec's table, written down a second time without msgpack."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return plain_int(value)
    if isinstance(value, bytes):
        return header(len(value), None, (0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, str):
        data = value.encode()
        return header(len(data), (0xA0, 32), (0xD9, 0xDA, 0xDB)) + data
    if isinstance(value, tuple):
        return header(len(value), (0x90, 16), (None, 0xDC, 0xDD)) + b"".join(map(plain_encoding, value))
    pairs = sorted((key.encode(), plain_encoding(key) + plain_encoding(item)) for key, item in value.items())
    return header(len(pairs), (0x80, 16), (None, 0xDE, 0xDF)) + b"".join(pair for _, pair in pairs)


def plain_int(value: int) -> bytes:
    if -32 <= value <= 127:
        return bytes([value & 0xFF])
    first = 0xCC if value >= 0 else 0xD0
    for exponent in range(4):
        bits = 8 << exponent
        if -(1 << (bits - 1)) <= value < 0 or 0 <= value < (1 << bits):
            return bytes([first + exponent]) + value.to_bytes(bits // 8, "big", signed=value < 0)
    raise AssertionError(f"{value} has no encoding")


def header(count: int, fixed: tuple[int, int] | None, firsts: tuple[int | None, int, int]) -> bytes:
    if fixed is not None and count < fixed[1]:
        return bytes([fixed[0] + count])
    for first, size in zip(firsts, (1, 2, 4), strict=True):
        if first is not None and count < 1 << (8 * size):
            return bytes([first]) + count.to_bytes(size, "big")
    raise AssertionError(f"{count} has no header")


def same(left: Any, right: Any) -> bool:
    """Compare as the profile does: True is not 1."""
    return type(left) is type(right) and canonical.encode(left) == canonical.encode(right) and left == right


@given(VALUES)
def test_encode__is_the_plain_encoding(value: Any) -> None:
    assert canonical.encode(value) == plain_encoding(value)


@given(VALUES)
def test_decode__is_the_inverse_of_encode(value: Any) -> None:
    assert same(canonical.decode(canonical.encode(value)), value)


@given(st.binary(max_size=200))
def test_any_bytes__encode_to_themselves_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert canonical.encode(canonical.decode(data)) == data


# Bytes that start values, so that random input gets past its first element.
TOKENS = st.sampled_from(
    [b"\x80", b"\x81", b"\x82", b"\x90", b"\x91", b"\x92", b"\xa1a", b"\xa1b", b"\xc4\x01a", b"\xc0"]
)
ODD_TOKENS = st.sampled_from(
    [b"\x01", b"\xcc\x01", b"\xd9\x01a", b"\xca\0\0\0\0", b"\xd4\0\0", b"\xdc\0\1", b"\xde\0\1"]
)


@given(st.lists(TOKENS | ODD_TOKENS, max_size=40).map(b"".join))
def test_any_tokens__encode_to_themselves_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert canonical.encode(canonical.decode(data)) == data


@given(VALUES, st.data())
def test_mutated_bytes__encode_to_themselves_or_are_refused(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(canonical.encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        assert canonical.encode(canonical.decode(bytes(encoded))) == bytes(encoded)
