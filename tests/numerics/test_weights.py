"""Initial weights: the same bits everywhere, and the laws they claim."""

import hashlib

import numpy as np
import pytest

from iota_p2p.model.stage import Stage
from iota_p2p.model.weights import around_one, frame_of, largest_frame, standard
from tests.numerics.pipelines import make_plan


def test_standard__has_the_same_bits_on_every_platform() -> None:
    """Golden: any change here makes every existing run start from other weights."""
    values = standard(1, "blocks.0.ffn.up.weight", 1000)
    assert values[:3].tolist() == [1.1047585010528564, 1.409167766571045, -0.539389431476593]
    digest = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
    assert digest == "77bd8d0da27fa550b5be96c0293b91b2d35c8eed38c31c0ea068300b98908a5c"


def test_standard__has_mean_0_and_variance_1() -> None:
    values = standard(1, "x", 200_000)
    assert abs(values.mean()) < 0.01
    assert values.std() == pytest.approx(1, abs=0.01)
    assert abs(np.mean(values**4) - 2.7) < 0.1  # the kurtosis of four uniforms; a normal law has 3


def test_standard__does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = standard(1, "x", 1000)
    monkeypatch.setattr("iota_p2p.model.weights._CHUNK_WORDS", 64)
    assert np.array_equal(standard(1, "x", 1000), whole)


def test_standard__differs_by_name_and_seed() -> None:
    draws = [standard(seed, name, 8).tobytes() for seed, name in ((0, "a"), (0, "b"), (1, "a"))]
    assert len(set(draws)) == 3


def test_around_one__gives_all_rows_a_common_part_of_the_same_size() -> None:
    rows = around_one(0.3)(1, "embedding", (2000, 64))
    common = rows.mean(axis=0)
    assert common.std() == pytest.approx(0.3, abs=0.06)
    assert (rows - common).std() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(("rows", "columns"), [(256, 7), (128, 128), (96, 32), (5120, 159)])
def test_frame__is_orthonormal(rows: int, columns: int) -> None:
    frame = frame_of(3, "frame", rows, columns)
    assert np.abs(frame.T @ frame - np.eye(columns)).max() < 1e-5
    assert np.unique(np.abs(frame)).size == 1


def test_frame__refuses_more_columns_than_its_blocks_have() -> None:
    assert largest_frame(96) == 32
    with pytest.raises(ValueError, match="at most 32"):
        frame_of(3, "frame", 96, 33)


@pytest.mark.parametrize("boundary", ["iota:4:8", "anchored:4:8", "subspace:4:8"])
@pytest.mark.parametrize("table_rank", [0, 5])
def test_stage__fills_every_weight_and_fixed_table(boundary: str, table_rank: int) -> None:
    """Two stages of one seed agree, and a third of another seed differs in every drawn value."""
    plan = make_plan(boundary, table_rank=table_rank)
    first, second, other = (Stage(plan, 1, seed=seed) for seed in (1, 1, 2))
    drawn = [
        (name, a.numpy(force=True), b.numpy(force=True), c.numpy(force=True))
        for (name, a), b, c in zip(
            [*first.named_parameters(), *first.named_buffers()],
            [*second.parameters(), *second.buffers()],
            [*other.parameters(), *other.buffers()],
            strict=True,
        )
    ]
    assert [name for name, a, b, _ in drawn if not np.array_equal(a, b)] == []
    same = {name for name, a, _, c in drawn if np.array_equal(a, c)}
    assert {name for name in same if "norm" not in name and not name.startswith("rotary.")} == set()
