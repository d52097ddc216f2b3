"""The project's arithmetic, bit for bit against `reference`, which works one number at a time without numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_protocols.butterfly.codec import MAX_MAGNITUDE, pairwise_sum
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.reduce import Reducer, counted_samples, reduce_block
from tests.butterfly import reference
from tests.butterfly.gradients import vector

NAMES = pytest.mark.parametrize("name", CODECS)
# Few different values make ties; the others come in every size.
VALUE = st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.25, 2.0**-101]) | st.floats(-MAX_MAGNITUDE, MAX_MAGNITUDE, width=32)


@NAMES
@given(values=st.lists(VALUE, min_size=1, max_size=600))
def test_blocks__are_what_the_reference_writes_and_reads(name: str, values: list[float]) -> None:
    block = CODECS[name].encode(np.array(values, dtype=np.float32))
    assert block == reference.encode(name, values)
    decoded = CODECS[name].decode_block(block, len(values))
    np.testing.assert_array_equal(decoded, np.array(reference.decode(name, block, len(values)), dtype=np.float32))


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=70))
def test_pairwise_sum__adds_in_the_order_of_the_reference(numbers: list[float]) -> None:
    assert pairwise_sum(np.array([numbers])).tolist() == [reference.pairwise(numbers)]


@NAMES
@settings(max_examples=30)
@given(data=st.data())
def test_results__are_what_the_reference_finds(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 300))
    samples = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=6))
    blocks: list[bytes | None] = []
    for _ in samples:
        factor = data.draw(st.sampled_from([0.0, 1e-30, 1.0, 3.7, -1.0, -1e5]) | st.none())
        values = (
            None
            if factor is None
            else (vector(count, 9) + vector(count, data.draw(st.integers(0, 2)))) * np.float32(factor)
        )
        blocks.append(None if values is None else CODECS[name].encode(values))
    got = reduce_block(blocks, samples, CODECS[name], count).encoded
    assert got == reference.reduce(name, blocks, samples, count)


@NAMES
def test_blocks_one_after_the_other__are_what_the_reference_finds(name: str) -> None:
    """Lengths around powers of two, rising and falling: nothing of one block is left in the next one's sums."""
    samples = [3, 1, 4, 90]
    reducer = Reducer(counted_samples(samples), CODECS[name], 2100)
    for count in (700, 2100, 511, 513, 1024, 2049, 5):
        blocks = [
            None if seed == count % 5 else CODECS[name].encode(vector(count, 9) + vector(count, seed))
            for seed in range(len(samples))
        ]
        assert reducer.reduce(blocks, count).encoded == reference.reduce(name, blocks, samples, count)
