from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.codec import Vector
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.reduce import MAX_BOAST, counted_samples, reduce_block
from tests.butterfly.gradients import vector

EXACT = CODECS["float32"]
LONG = 4000
GROUPS = (1, 2, 3, 5, 8, 16, 50)


def of_norm(norm: float, seed: int, length: int = 64) -> Vector:
    values = vector(length, seed).astype(np.float64)
    scaled: Vector = (values / np.linalg.norm(values) * norm).astype(np.float32)
    return scaled


def mean_of(blocks: list[Vector | None], samples: list[int]) -> Vector:
    length = max(0 if block is None else len(block) for block in blocks) or 64
    encoded = [None if block is None else EXACT.encode(block) for block in blocks]
    return EXACT.decode_block(reduce_block(encoded, samples, EXACT, length).encoded, length)


@pytest.mark.parametrize("members", GROUPS)
@settings(max_examples=25)
@given(data=st.data())
def test_mean__is_exact_when_nobody_is_clipped(members: int, data: st.DataObject) -> None:
    """Members with the same magnitudes have one norm; the rational mean, rounded once, is the result."""
    magnitudes = data.draw(st.lists(st.integers(0, 4000), min_size=1, max_size=6))
    signs = st.lists(st.sampled_from([-1, 1]), min_size=len(magnitudes), max_size=len(magnitudes))
    rows = [[m * s for m, s in zip(magnitudes, data.draw(signs), strict=True)] for _ in range(members)]
    samples = data.draw(st.lists(st.integers(1, 40), min_size=members, max_size=members))
    encoded = [EXACT.encode(np.array(row, dtype=np.float32)) for row in rows]
    reduced = reduce_block(encoded, samples, EXACT, len(magnitudes))
    weights = [0 if i in reduced.astray else weight for i, weight in enumerate(counted_samples(samples))]
    expected = [
        float(np.float32(float(Fraction(sum(w * row[i] for w, row in zip(weights, rows, strict=True)), sum(weights)))))
        for i in range(len(magnitudes))
    ]
    assert reduced.clipped == ()
    assert EXACT.decode_block(reduced.encoded, len(magnitudes)).tolist() == expected


@pytest.mark.parametrize("members", GROUPS)
def test_identical_contributions__come_back_unchanged(members: int) -> None:
    block = vector(500)
    np.testing.assert_array_equal(mean_of([block] * members, list(range(1, members + 1))), block)


def test_samples__weigh() -> None:
    got = mean_of([of_norm(1, 1), of_norm(1, 2)], [1, 3])
    np.testing.assert_allclose(got, (of_norm(1, 1) + 3 * of_norm(1, 2)) / 4, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("samples", "counted"),
    [
        ((5,), (5,)),
        ((5, 1000), (5, 5 * MAX_BOAST)),
        ((3, 4, 1000), (3, 4, 4 * MAX_BOAST)),
        ((0, 0, 7), (0, 0, 0)),
        ((1, 2, 3, 4), (1, 2, 3, 4)),
    ],
)
def test_boast__counts_for_a_few_medians_at_most(samples: tuple[int, ...], counted: tuple[int, ...]) -> None:
    assert counted_samples(samples) == counted


def test_scaled_contribution__counts_like_the_others() -> None:
    honest = [of_norm(1, seed) for seed in range(4)]
    attacked = reduce_block([EXACT.encode(b) for b in (*honest[:3], honest[3] * 1000)], [1] * 4, EXACT, 64)
    assert 3 in attacked.clipped
    np.testing.assert_allclose(EXACT.decode_block(attacked.encoded, 64), mean_of(list(honest), [1] * 4), atol=1e-6)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9), st.integers(0, 4), st.floats(1, 1e4))
def test_norm_of_the_mean__never_passes_the_honest_maximum(norms: list[float], liars: int, factor: float) -> None:
    """As long as the liars are fewer than half, nothing they send makes the result longer than an honest block."""
    liars = min(liars, (len(norms) - 1) // 2)
    honest = norms[liars:]
    blocks: list[Vector | None] = [of_norm(n * factor, i) for i, n in enumerate(norms[:liars])]
    blocks += [of_norm(n, liars + i) for i, n in enumerate(honest)]
    assert np.linalg.norm(mean_of(blocks, [1] * len(blocks))) <= max(honest) * 1.0001


def reverse(common: Vector, seed: int) -> Vector:
    return -100 * (common + of_norm(1, seed, len(common)))


def noise(common: Vector, seed: int) -> Vector:
    return of_norm(100, seed, len(common))


def the_same_lie(common: Vector, _: int) -> Vector:
    return of_norm(1, 999, len(common))


def nothing(common: Vector, _: int) -> Vector:
    return np.zeros_like(common)


@pytest.mark.parametrize("lie", [reverse, noise, the_same_lie, nothing])
@pytest.mark.parametrize(("members", "liars"), [(4, 1), (8, 2), (16, 4), (50, 12)])
def test_a_quarter_gone_astray__is_left_out(members: int, liars: int, lie: Callable[[Vector, int], Vector]) -> None:
    """A fifth of honest blocks' square is noise; liars boast of their samples, too."""
    common = of_norm(2, 0, LONG)
    honest = [common + of_norm(1, 1 + seed, LONG) for seed in range(members - liars)]
    lies = [lie(common, 100 + seed) for seed in range(liars)]
    blocks = [EXACT.encode(block) for block in (*lies, *honest)]
    reduced = reduce_block(blocks, [1000] * liars + [10] * len(honest), EXACT, LONG)
    assert reduced.astray == tuple(range(liars))


def test_zeros_of_everybody__are_no_reason_to_leave_out_anybody() -> None:
    assert reduce_block([EXACT.encode(np.zeros(64, np.float32))] * 5, [1] * 5, EXACT, 64).astray == ()


@settings(max_examples=30)
@given(st.integers(2, 16), st.integers(0, 2**32))
def test_honest_contributions__with_nothing_in_common_are_not_left_out(members: int, seed: int) -> None:
    """The worst case for honest members: blocks that are independent of each other."""
    rows = np.random.default_rng(seed).standard_normal((members, LONG)).astype(np.float32)
    assert reduce_block([EXACT.encode(row) for row in rows], [1] * members, EXACT, LONG).astray == ()


def test_two_members__are_both_heard_even_if_opposite() -> None:
    assert reduce_block([EXACT.encode(of_norm(1, 1)), EXACT.encode(-of_norm(1, 1))], [1, 3], EXACT, 64).astray == ()


def test_missing_contribution__is_left_out() -> None:
    blocks = [of_norm(1, 1), None, of_norm(1, 2)]
    np.testing.assert_array_equal(mean_of(list(blocks), [2, 9, 2]), mean_of([blocks[0], blocks[2]], [1, 1]))


def test_bad_contribution__is_left_out_and_named() -> None:
    bad = np.array([np.nan] * 64, dtype="<f4").tobytes()
    good = [EXACT.encode(of_norm(1, seed)) for seed in range(2)]
    reduced = reduce_block([good[0], bad, good[1], b"short"], [1] * 4, EXACT, 64)
    assert reduced.refused == (1, 3)
    assert reduced.encoded == reduce_block([good[0], None, good[1], None], [1] * 4, EXACT, 64).encoded


@pytest.mark.parametrize(
    ("blocks", "samples"),
    [([None, None], [1, 1]), ([of_norm(1, 1), of_norm(1, 2)], [0, 0]), ([np.zeros(64, np.float32)] * 3, [1, 1, 1])],
)
def test_result__is_zero_when_nothing_counts(blocks: list[Vector | None], samples: list[int]) -> None:
    assert not mean_of(blocks, samples).any()


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_lossy_codecs__give_nearly_the_same_mean(name: str) -> None:
    codec, blocks = CODECS[name], [vector(5000, seed) for seed in range(4)]
    reduced = reduce_block([codec.encode(block) for block in blocks], [1, 2, 3, 4], codec, 5000)
    exact = mean_of(list(blocks), [1, 2, 3, 4])
    error = np.linalg.norm(codec.decode_block(reduced.encoded, 5000) - exact)
    assert error < 0.02 * np.linalg.norm(exact)


def test_order__of_the_same_members_does_not_change_the_mean_beyond_rounding() -> None:
    blocks: list[Vector | None] = [of_norm(1 + seed / 10, seed) for seed in range(7)]
    samples = [3, 1, 4, 1, 5, 9, 2]
    np.testing.assert_allclose(mean_of(blocks[::-1], samples[::-1]), mean_of(blocks, samples), rtol=1e-6, atol=1e-9)


GOLDEN = {
    "float32": "fed1f306e6614491",
    "bfloat16": "2e190a4f63405cb2",
    "int8": "1afe2442ec4f522c",
    "top-k": "1b68f60893b2b512",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_result__is_the_same_everywhere(name: str) -> None:
    """Golden digests: another platform that adds in another order fails here, not in the field."""
    codec = CODECS[name]
    encoded = [codec.encode(vector(9000, seed) * np.float32(1 + seed)) for seed in range(5)]
    reduced = reduce_block([*encoded, None], [3, 1, 4, 1, 99, 7], codec, 9000)
    assert digest(reduced.encoded).hex()[:16] == GOLDEN[name]
