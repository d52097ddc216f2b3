"""Shards, tokenizers and corpora."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.run import corpus
from iota_p2p.run.shards import MAX_SHARD_BYTES, ShardStore, Windows, data_spec, pack, unpack
from iota_p2p.run.spec import ModelSpec, ShardRef
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_crypto.errors import MalformedError, OversizedError, PeerUnavailableError, RemoteProtocolError, UserError


def model(*, vocab_size: int = 256, length: int = 8) -> ModelSpec:
    return ModelSpec(
        vocab_size=vocab_size,
        width=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        ffn_width=8,
        sequence_length=length,
    )


@given(st.lists(st.integers(0, 255), min_size=1), st.sampled_from([256, 50_000, 128_256]))
def test_shard__comes_back(ids: list[int], vocab_size: int) -> None:
    assert unpack(pack(np.asarray(ids, np.uint32), vocab_size)).tolist() == ids


@pytest.mark.parametrize(("vocab_size", "size"), [(256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_shard__takes_the_smallest_ids(vocab_size: int, size: int) -> None:
    assert len(pack(np.asarray([vocab_size - 1], np.uint32), vocab_size)) == 16 + size


@given(st.binary(max_size=64))
def test_shard__refuses_any_other_bytes(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        b"IOTASHD1\x01\0\0\0\0\0\0\0",
        b"IOTASHD1\x01\0\0\0\x02\0\0\0a",
        b"IOTASHD1\x03\0\0\0\x01\0\0\0abc",
        b"IOTASHD1\x01\0\1\0\x01\0\0\0a",
        b"IOTASHD2\x01\0\0\0\x01\0\0\0a",
    ],
)
def test_shard__refuses_what_is_almost_one(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unpack(data)


def test_shard__refuses_more_than_its_bound() -> None:
    with pytest.raises(OversizedError):
        unpack(bytes(MAX_SHARD_BYTES + 1))


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "shards")


def add(store: ShardStore, *ids: int) -> ShardRef:
    return store.add(pack(np.asarray(ids, np.uint32), 256))


def test_store__refuses_a_shard_with_another_digest(store: ShardStore) -> None:
    ref = add(store, 1, 2, 3)
    with pytest.raises(MalformedError) as caught:
        store.add(pack(np.asarray([9], np.uint32), 256), ref)
    assert caught.value.rule == "shard-digest"


def test_store__refuses_a_shard_with_another_count(store: ShardStore) -> None:
    ref = add(store, 1, 2, 3)
    with pytest.raises(MalformedError) as caught:
        store.add(store.read(ref), ref.model_copy(update={"num_tokens": 4}))
    assert caught.value.rule == "shard-tokens"


def test_store__refuses_a_file_that_was_damaged(store: ShardStore) -> None:
    ref = add(store, 1, 2, 3)
    path = store.folder / f"{ref.digest}.tokens"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(MalformedError):
        store.read(ref)


def test_store__says_unavailable_when_a_shard_is_not_here(store: ShardStore) -> None:
    absent = ShardRef(digest="00" * 32, num_tokens=1)
    assert not store.has(absent)
    with pytest.raises(PeerUnavailableError):
        store.read(absent)


def test_store__leaves_only_shards_in_its_folder(store: ShardStore) -> None:
    ref = add(store, 1)
    assert [path.name for path in store.folder.iterdir()] == [f"{ref.digest}.tokens"]


def test_windows__cover_every_shard_without_crossing_one(store: ShardStore) -> None:
    shards = [add(store, *range(9)), add(store, *range(100, 108)), add(store, *range(200, 225))]
    windows = Windows(store, shards, model())
    assert windows.count == 1 + 0 + 3
    assert windows.read(range(4)).tolist() == [list(range(s, s + 9)) for s in (0, 200, 208, 216)]
    assert [windows.shard_of(index) for index in range(4)] == [shards[0], *[shards[2]] * 3]


@pytest.mark.parametrize("index", [-1, 4])
def test_windows__has_no_window_outside(store: ShardStore, index: int) -> None:
    windows = Windows(store, [add(store, *range(33))], model())
    with pytest.raises(IndexError):
        windows.read([index])


def test_windows__refuse_ids_outside_the_vocabulary(store: ShardStore) -> None:
    with pytest.raises(MalformedError) as caught:
        Windows(store, [add(store, *range(20))], model(vocab_size=19)).read([0])
    assert caught.value.rule == "shard-vocabulary"


def test_windows__say_so_when_there_is_too_little_data(store: ShardStore) -> None:
    with pytest.raises(UserError):
        Windows(store, [add(store, *range(8))], model())


def test_data_spec__packs_documents_into_shards_of_equal_size(
    store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iota_p2p.run.shards.SHARD_TOKENS", 10)
    data = data_spec(["abcdefgh", "ijklmnopq", "r"], ["held out"], ByteTokenizer(), store)
    assert [ref.num_tokens for ref in data.train] == [10, 10, 1]
    assert b"".join(unpack(store.read(ref)).tobytes() for ref in data.train) == b"abcdefgh\0ijklmnopq\0r\0"


def test_data_spec__says_so_when_nothing_is_held_out(store: ShardStore) -> None:
    with pytest.raises(UserError, match="too small"):
        data_spec(["text"], [], ByteTokenizer(), store)


def test_split__depends_on_content_only() -> None:
    texts = [f"document {number}" for number in range(400)]
    train, heldout = corpus.split(texts)
    assert corpus.split(reversed(texts))[1] == list(reversed(heldout))
    assert set(train) | set(heldout) == set(texts)
    assert 10 < len(heldout) < 45


def test_files__come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe")
    assert list(corpus.files(f"{tmp_path}/*.txt")) == ["a.txt", "b.txt"]
    assert list(corpus.files(f"{tmp_path}/**/*.md")) == ["c.md"]


def test_files__say_so_when_nothing_matches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file matches"):
        corpus.files(f"{tmp_path}/*.txt")


def test_files__are_cut_at_line_ends_so_that_one_is_enough_for_a_run(tmp_path: Path) -> None:
    text = "".join(f"line {number}, größer\r\n" for number in range(40_000))  # 700 KB
    (tmp_path / "book.txt").write_bytes(text.encode())
    pieces = list(corpus.files(f"{tmp_path}/*.txt"))
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") and len(piece) < 17_000 for piece in pieces)
    train, heldout = corpus.split(pieces)
    assert len(train) > 5 * len(heldout) > 0


def test_files__say_so_when_none_is_text(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match="is text in UTF-8"):
        list(corpus.files(f"{tmp_path}/*.txt"))


def test_standard_library__is_there() -> None:
    texts = corpus.standard_library()
    assert "def" in next(texts) + next(texts)
