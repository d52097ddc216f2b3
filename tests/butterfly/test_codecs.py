from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, MAX_MAGNITUDE, Codec, block_counts
from iota_p2p_protocols.butterfly.codecs import CODECS, encode_with_feedback, result_codec
from iota_p2p_protocols.errors import LocalProtocolError, MalformedError
from tests.butterfly.gradients import vector

ALL = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
DENSE = pytest.mark.parametrize("codec", [CODECS[name] for name in ("float32", "bfloat16", "int8")], ids=str)
LENGTHS = (1, 255, 257, BLOCK_VALUES - 1, BLOCK_VALUES, BLOCK_VALUES + 1, 9 * BLOCK_VALUES + 300)
FINITE = st.floats(-MAX_MAGNITUDE, MAX_MAGNITUDE, width=32)


@ALL
@pytest.mark.parametrize("length", LENGTHS)
def test_encode__has_the_announced_length_and_decodes_block_by_block(codec: Codec, length: int) -> None:
    encoded = codec.encode(vector(length))
    assert len(encoded) == codec.encoded_bytes(length)
    counts = block_counts(length)
    blocks = [
        codec.decode_block(encoded[i * codec.block_bytes :][: codec.encoded_bytes(count)], count)
        for i, count in enumerate(counts)
    ]
    np.testing.assert_array_equal(np.concatenate(blocks), codec.decode(encoded, length))


@ALL
def test_encode__gives_a_block_the_same_bytes_wherever_it_stands(codec: Codec) -> None:
    values = vector(11 * BLOCK_VALUES)
    encoded = codec.encode(values)
    for index in (0, 7, 8, 10):
        alone = codec.encode(values[index * BLOCK_VALUES :][:BLOCK_VALUES])
        assert encoded[index * codec.block_bytes :][: codec.block_bytes] == alone


@given(st.lists(FINITE, min_size=1, max_size=600))
def test_float32__returns_every_value(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(CODECS["float32"].decode(CODECS["float32"].encode(exact), len(exact)), exact)


@given(st.lists(FINITE, min_size=1, max_size=600))
def test_bfloat16__is_within_half_a_last_place(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32)
    got = CODECS["bfloat16"].decode(CODECS["bfloat16"].encode(exact), len(exact))
    assert (np.abs(got - exact) <= np.abs(exact) * 2.0**-8 + 2.0**-133).all()


@pytest.mark.parametrize(
    ("value", "rounded"), [(1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (1 + 2**-8 + 2**-20, 1 + 2**-7)]
)
def test_bfloat16__breaks_ties_to_even(value: float, rounded: float) -> None:
    codec = CODECS["bfloat16"]
    assert codec.decode(codec.encode(np.array([value, -value], dtype=np.float32)), 2).tolist() == [rounded, -rounded]


@given(st.lists(FINITE, min_size=1, max_size=600))
def test_int8__is_within_half_a_level_of_its_unit(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32)
    got = CODECS["int8"].decode(CODECS["int8"].encode(exact), len(exact))
    for start in range(0, len(exact), 256):
        part = exact[start : start + 256].astype(np.float64)
        allowed = np.abs(part).max() / 127 * 0.500001 + 2.0**-100
        assert np.abs(got[start : start + 256] - part).max() <= allowed


@DENSE
@given(values=st.lists(FINITE, min_size=1, max_size=600))
def test_encode__settles_after_one_round_trip(codec: Codec, values: list[float]) -> None:
    """What has been encoded once loses nothing by being encoded again, but a level of int8 at most by rounding."""
    once = codec.decode(codec.encode(np.array(values, dtype=np.float32)), len(values))
    again = codec.decode(codec.encode(once), len(values))
    np.testing.assert_allclose(again, once, rtol=1e-6, atol=0)


def test_top_k__keeps_the_largest_and_breaks_ties_by_position() -> None:
    values = np.full(256, 0.5, dtype=np.float32)
    values[100:110] = -2
    got = CODECS["top-k"].decode(CODECS["top-k"].encode(values), 256)
    assert np.flatnonzero(got).tolist() == [*range(6), *range(100, 110)]
    assert (got[100:110] < 0).all()


@given(st.lists(FINITE, min_size=1, max_size=600))
def test_top_k__keeps_signs_and_no_more_than_its_share(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32)
    got = CODECS["top-k"].decode(CODECS["top-k"].encode(exact), len(exact))
    assert (got * exact >= 0).all()
    assert all(np.count_nonzero(got[start : start + 256]) <= 16 for start in range(0, len(exact), 256))


@ALL
def test_feedback__sends_in_the_end_what_it_owes(codec: Codec) -> None:
    """The sum of what was sent differs from the sum of what should have been by the last residual alone."""
    residual = None
    sent, owed = np.zeros(3000), np.zeros(3000)
    for epoch in range(12):
        values = vector(3000, epoch)
        owed += values
        encoded = encode_with_feedback(codec, values, residual)
        residual = values
        sent += codec.decode(encoded, 3000)
    assert residual is not None
    np.testing.assert_allclose(sent + residual, owed, atol=1e-7)


def test_feedback__refuses_a_residual_of_another_stage() -> None:
    with pytest.raises(LocalProtocolError, match="residual"):
        encode_with_feedback(CODECS["int8"], vector(300), vector(299))


@ALL
def test_encode__cuts_off_what_decode_would_refuse(codec: Codec) -> None:
    wild = np.array([1e30, -1e30, MAX_MAGNITUDE * 1.01] * 99 + [1], dtype=np.float32)
    assert np.abs(codec.decode(codec.encode(wild), len(wild))).max() <= MAX_MAGNITUDE


@ALL
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_encode__refuses_what_is_not_finite(codec: Codec, bad: float) -> None:
    values = vector(BLOCK_VALUES + 300)
    values[-1] = bad
    with pytest.raises(LocalProtocolError, match="finite"):
        codec.encode(values)


@ALL
def test_encode__refuses_other_arrays(codec: Codec) -> None:
    others: list[Any] = [np.zeros(0, np.float32), np.zeros((2, 2), np.float32), np.zeros(3)]
    for values in others:
        with pytest.raises(LocalProtocolError):
            codec.encode(values)


def int8_block(scale: float) -> bytes:
    return np.array([scale], dtype="<f4").tobytes() + b"\x00" * 255 + b"\x7f"


HOSTILE = {
    "float32": [np.array([value], dtype="<f4").tobytes() for value in (np.nan, np.inf, -np.inf, 70000)],
    "bfloat16": [b"\xc0\x7f", b"\x80\x7f", b"\x80\xff", b"\x00\x48"],
    "int8": [int8_block(value) for value in (np.nan, np.inf, -np.inf, 3e38, -600)],
    "top-k": [np.array([v], dtype="<f4").tobytes() + bytes(range(16)) + b"\xff" * 4 for v in (np.nan, np.inf, 1e38)],
}


@pytest.mark.parametrize(("name", "block"), [(name, block) for name, blocks in HOSTILE.items() for block in blocks])
def test_decode_block__refuses_what_is_not_finite_or_too_large(name: str, block: bytes) -> None:
    count = 1 if name in ("float32", "bfloat16") else 256
    with pytest.raises(MalformedError) as caught:
        CODECS[name].decode_block(block, count)
    assert caught.value.rule == "block-values"


@ALL
@pytest.mark.parametrize("change", [-1, 1])
def test_decode_block__refuses_another_length(codec: Codec, change: int) -> None:
    with pytest.raises(MalformedError) as caught:
        codec.decode_block(bytes(codec.block_bytes + change), BLOCK_VALUES)
    assert caught.value.rule == "block-length"


@ALL
@given(data=st.data())
def test_any_bytes__are_bounded_values_or_refused(codec: Codec, data: st.DataObject) -> None:
    block = data.draw(st.binary(min_size=codec.encoded_bytes(300), max_size=codec.encoded_bytes(300)))
    with suppress(MalformedError):
        assert np.abs(codec.decode_block(block, 300)).max() <= MAX_MAGNITUDE


def test_result_codec__is_int8_where_values_are_dropped() -> None:
    assert {name: result_codec(codec).name for name, codec in CODECS.items()} == {
        "float32": "float32",
        "bfloat16": "bfloat16",
        "int8": "int8",
        "top-k": "int8",
    }


GOLDEN = {
    "float32": "036f549421107483",
    "bfloat16": "0f0e63a8a267692b",
    "int8": "1170a57a942b1794",
    "top-k": "62d24a9c64966b74",
}


@ALL
def test_encode__gives_the_same_bytes_everywhere(codec: Codec) -> None:
    """Golden digests: a platform that rounds or chooses differently fails here, not in the field."""
    assert digest(codec.encode(vector(3 * BLOCK_VALUES + 77))).hex()[:16] == GOLDEN[codec.name]
