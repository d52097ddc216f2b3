"""Tokenizer files and datasets of the Hugging Face libraries: the real libraries on small local data.

The libraries are the extra `data`, which `make setup` installs; without them these tests are skipped.
"""

import json
from pathlib import Path

import pytest

from iota_p2p.run import corpus
from iota_p2p.run.founding import found_run
from iota_p2p.run.shards import ShardStore, unpack
from iota_p2p.run.tokens import FileTokenizer, optional
from iota_p2p_crypto.errors import UserError
from iota_p2p_testnet.training_swarm import small_plan

TEXTS = [f"def answer_{number}():\n    return {number} * {number}  # größer\n" for number in range(200)]


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """Return a byte-level BPE vocabulary, trained here, with a separator after every document."""
    library = pytest.importorskip("tokenizers", reason="the extra `data` is not installed")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = library.processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    tokenizer.enable_truncation(8)  # as published files have it
    tokenizer.enable_padding(length=64)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a dataset's folder of two files with a column `code`."""
    pytest.importorskip("datasets", reason="the extra `data` is not installed")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    folder.mkdir()
    for part in range(2):
        rows = (json.dumps({"code": text, "lines": 2}) for text in TEXTS[part * 100 : (part + 1) * 100])
        (folder / f"train-{part}.jsonl").write_text("\n".join(rows), "utf-8")
    return folder


def test_tokenizer_file__keeps_every_document_whole(tokenizer_file: Path) -> None:
    """Whatever truncation and padding the file asks for, and with the separator that it adds."""
    library = pytest.importorskip("tokenizers")
    tokenizer = FileTokenizer(tokenizer_file)
    decoder = library.Tokenizer.from_file(str(tokenizer_file))
    for text in TEXTS[:20]:
        ids = tokenizer.encode(text).tolist()
        assert ids[-1] == 0
        assert 0 not in ids[:-1]
        assert decoder.decode(ids) == text
    assert tokenizer.vocab_size == 300
    assert tokenizer.spec == FileTokenizer(tokenizer_file).spec
    assert tokenizer.spec.kind == "file"


def test_tokenizer_file__counts_ids_and_not_entries(tmp_path: Path) -> None:
    """An id beyond the model's table would be found by the first peer that trains on it."""
    pytest.importorskip("tokenizers", reason="the extra `data` is not installed")
    path = tmp_path / "tokenizer.json"
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 7, "?": 2}, "unk_token": "?"}
    path.write_text(json.dumps({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": words}))
    tokenizer = FileTokenizer(path)
    assert tokenizer.encode("b a c").tolist() == [7, 0, 2]
    assert tokenizer.vocab_size == 8


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b'{"model": {}}'])
def test_tokenizer_file__reject_when_it_is_none(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the extra `data` is not installed")
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a tokenizer file"):
        FileTokenizer(path)


def test_dataset__streams_its_first_documents_in_order(dataset: Path) -> None:
    assert list(corpus.dataset_stream(str(dataset), "local", "code", 120)) == TEXTS[:120]


def test_dataset__reject_when_it_or_its_column_is_not_there(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot stream the dataset"):
        corpus.dataset_stream(str(tmp_path / "absent"), "local", "code", 1)
    with pytest.raises(UserError, match="no text in column 'text' of every row; texts: code"):
        list(corpus.dataset_stream(str(dataset), "local", "text", 1))
    with pytest.raises(UserError, match="no text in column 'lines'"):
        list(corpus.dataset_stream(str(dataset), "local", "lines", 1))
    with pytest.raises(UserError, match="cannot stream"):
        corpus.dataset_stream(str(dataset), "local", "code", 1, subset="absent")
    (dataset / "train-0.jsonl").write_text('{"code": "whole"}\n{"code": "br')
    with pytest.raises(UserError, match="broke off"):
        list(corpus.dataset_stream(str(dataset), "local", "code", 100))


def test_run__of_a_dataset_in_a_tokenizer_files_tokens(dataset: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    """What peers fetch is the documents' tokens, and the spec names the tokenizer; equal input is an equal run."""
    plan = small_plan()
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"vocab_size": 300})})
    tokenizer = FileTokenizer(tokenizer_file)
    specs = []
    for name in ("once", "again"):
        store = ShardStore(tmp_path / name)
        documents = corpus.dataset_stream(str(dataset), "local", "code", 200)
        specs.append(found_run(plan, documents, tokenizer, store, seed=0))
    assert specs[0].run_id == specs[1].run_id
    data = specs[0].data
    assert data.tokenizer == tokenizer.spec
    train, heldout = corpus.split(TEXTS)
    for refs, texts in ((data.train, train), (data.heldout, heldout)):
        tokens = [token for ref in refs for token in unpack(store.read(ref)).tolist()]
        assert tokens == [token for text in texts for token in tokenizer.encode(text).tolist()]


def test_library_that_is_missing__is_named_with_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"to be tested, install the library `no_such_library`: pip install .*\[data\]"):
        optional("no_such_library", "to be tested")
