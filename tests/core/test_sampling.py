"""Which token is chosen from logits."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iota_p2p.generation.sampling import Sampling

ANY_LOGITS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**99), 2.0**99, width=32))


def logits(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def chosen(sampling: Sampling, *values: float, times: int = 1000) -> Counter[int]:
    rng = np.random.default_rng(0)
    return Counter(sampling.choose(logits(*values), rng) for _ in range(times))


def test_choose__likeliest_when_the_temperature_is_0() -> None:
    assert chosen(Sampling(temperature=0, top_k=3), 1, 3, 2, 3) == {1: 1000}


def test_choose__as_often_as_the_softmax_says() -> None:
    counts = chosen(Sampling(), *np.log([0.6, 0.3, 0.1]).tolist(), times=4000)
    assert [counts[token] / 4000 for token in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_choose__by_the_square_of_chances_when_the_temperature_is_a_half() -> None:
    counts = chosen(Sampling(temperature=0.5), *np.log([0.6, 0.3, 0.1]).tolist(), times=4000)
    assert [counts[token] / 4000 for token in range(3)] == pytest.approx([0.783, 0.196, 0.022], abs=0.03)


def test_choose__only_among_the_top_k() -> None:
    assert set(chosen(Sampling(temperature=100, top_k=2), 0, 5, 1, 4, 3)) == {1, 3}
    assert set(chosen(Sampling(temperature=100, top_k=99), 0, 5, 1, 4, 3)) == {0, 1, 2, 3, 4}


def test_choose__lower_tokens_first_when_the_top_k_cuts_through_equals() -> None:
    assert set(chosen(Sampling(top_k=2), 1, 1, 1, 1)) == {0, 1}


def test_choose__repeats_itself_for_one_seed() -> None:
    values = logits(*range(10))
    first, second = (
        [Sampling(temperature=3).choose(values, rng) for _ in range(20)]
        for rng in (np.random.default_rng(7), np.random.default_rng(7))
    )
    assert first == second


@given(values=ANY_LOGITS, temperature=st.floats(0, 1e30), top_k=st.integers(0, 50))
def test_choose__some_token_whatever_the_logits(
    values: npt.NDArray[np.float32], temperature: float, top_k: int
) -> None:
    assert 0 <= Sampling(temperature, top_k).choose(values, np.random.default_rng(0)) < len(values)
