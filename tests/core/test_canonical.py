"""What canonical msgpack promises beyond its vectors: whose fault it is, and what it costs."""

import tracemalloc
from collections import OrderedDict
from typing import Any

import pytest

from iota_p2p_crypto import canonical
from iota_p2p_crypto.errors import LocalProtocolError, RemoteProtocolError

KIB = 1024


class Celsius(int):
    """An int that is no int: it would decode to another type."""


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        2**64,
        -(2**63) - 1,
        {1: 1},
        {b"a": 1},
        {None: 1},
        {1, 2},
        bytearray(b"a"),
        memoryview(b"a"),
        object(),
        Celsius(20),
        OrderedDict(a=1),
        "\ud800",
        {"\ud800": 1},
        CYCLE,
    ],
    ids=repr,
)
def test_encode__is_our_own_fault_outside_the_profile(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        canonical.encode(value)


def test_encode__sorts_without_touching_the_argument() -> None:
    value = {"b": [2, {"d": 1, "c": 0}], "a": 1}
    assert canonical.encode(value) == bytes.fromhex("82a16101a162920282a16300a16401")
    assert list(value) == ["b", "a"]


def test_lists_and_tuples__have_one_encoding_and_come_back_as_tuples() -> None:
    assert canonical.encode([1, (2,)]) == canonical.encode((1, [2]))
    assert canonical.decode(canonical.encode([1, [2]])) == (1, (2,))


def test_encode_and_decode__agree_on_the_deepest_value() -> None:
    value: Any = ()
    for _ in range(canonical.MAX_DEPTH - 1):
        value = (value,)
    assert canonical.decode(canonical.encode(value)) == value
    with pytest.raises(LocalProtocolError):
        canonical.encode((value,))


def test_decode__takes_exactly_max_bytes() -> None:
    data = canonical.encode(b"x" * 10)
    assert canonical.decode(data, max_bytes=len(data)) == b"x" * 10
    with pytest.raises(RemoteProtocolError, match="expected at most 11 bytes, got 12"):
        canonical.decode(data, max_bytes=11)


def array_of(element: bytes, size: int) -> bytes:
    count = (size - 5) // len(element)
    return b"\xdd" + count.to_bytes(4, "big") + element * count


HUNGRY = {
    "empty maps": array_of(b"\x80", 64 * KIB),
    "empty arrays": array_of(b"\x90", 64 * KIB),
    "chains of maps of one": array_of(b"\x81\xa0" * 14 + b"\x80", 64 * KIB),
    "chains of arrays of one": array_of(b"\x91" * 14 + b"\x80", 64 * KIB),
    "maps, refused for a long int": b"\x92\xcc\x01" + array_of(b"\x81\xa0\x80", 64 * KIB),
    "maps, refused for a bytes key": array_of(b"\x81\xc4\x00\x80", 64 * KIB),
    "maps, refused for depth": b"\x91" * 16 + array_of(b"\x80", 64 * KIB),
    "headers without elements": b"\xdc\x1f\xff" * 1000,  # a decoder that believes them takes 24 MB for these 3 KB
}


@pytest.mark.parametrize("data", HUNGRY.values(), ids=HUNGRY)
def test_decode__takes_at_most_a_hundred_times_the_bytes(data: bytes) -> None:
    tracemalloc.start()
    try:
        value = canonical.decode(data)
    except RemoteProtocolError:
        value = None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del value
    assert peak <= 100 * len(data)
