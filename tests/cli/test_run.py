"""`iota-p2p run`, run as its user runs it: a process, its output, its exit code and what is on disk."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iota_p2p.cli.commands import app
from iota_p2p.model.figures import figures_of
from iota_p2p.run.configs import config_names, find_config
from iota_p2p.run.data import RunData
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunSpec

CONFIGS = Path(__file__).parents[2] / "configs"


def iota(*words: str | Path, home: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command with a home of its own."""
    command = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", *map(str, words)]
    libraries = {"HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **libraries, "IOTA_P2P_HOME": str(home), "COLUMNS": "80"}
    return subprocess.run(command, check=False, capture_output=True, env=environment, timeout=120, cwd=cwd)


def shown(*words: str | Path) -> str:
    """Return what `run show` prints, in this process: importing torch for every one would take seconds."""
    result = CliRunner().invoke(app, ["run", "show", *map(str, words)], catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """Return a glob of 64 small files, some four of them held out."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(64):
        (folder / f"{number:02d}.txt").write_text(f"text {number} " * 200)
    return f"{folder}/*.txt"


def test_run_new__writes_a_spec_whose_shards_are_in_the_home(texts: str, tmp_path: Path) -> None:
    out, home = tmp_path / "a.run", tmp_path / "home"
    made = iota("run", "new", "--data", texts, "--seed", "7", "--out", out, "--json", home=home)
    assert made.returncode == 0, made.stderr
    assert made.stderr == b""
    fields = json.loads(made.stdout)
    spec = RunSpec.from_bytes(out.read_bytes())
    assert fields["run_id"] == spec.run_id.hex()
    assert (spec.name, spec.seed) == ("tiny", 7)
    assert RunData(spec, ShardStore(home / "shards")).microbatches_per_source > 0
    assert fields["training_tokens"] == sum(ref.num_tokens for ref in spec.data.train)


def test_run_new__is_the_same_run_again__wherever_its_files_go(texts: str, tmp_path: Path) -> None:
    specs = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.run"
        made = iota("run", "new", "--data", texts, "--store", tmp_path / name, "--out", out, home=tmp_path / "home")
        assert made.returncode == 0, made.stderr
        specs.append(out.read_bytes())
    assert specs[0] == specs[1]
    assert not (tmp_path / "home" / "shards").exists()


@pytest.mark.slow
def test_run_new__takes_a_dataset_and_a_tokenizer_file(texts: str, tmp_path: Path) -> None:
    for library in ("datasets", "tokenizers"):
        pytest.importorskip(library, reason="the extra `data` is not installed")
    vocabulary = {"?": 0, "text": 1, **{str(number): 2 + number for number in range(64)}}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"}
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(json.dumps({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": words}))
    source = ("--dataset", Path(texts).parent, "--revision", "local", "--tokenizer", tokenizer)
    made = iota("run", "new", *source, "--documents", "10000", "--out", tmp_path / "a.run", home=tmp_path / "home")
    assert made.returncode == 0, made.stderr
    spec = RunSpec.from_bytes((tmp_path / "a.run").read_bytes())
    assert spec.data.tokenizer.digest == sha256(tokenizer.read_bytes()).hexdigest()
    tokens = sum(ref.num_tokens for ref in (*spec.data.train, *spec.data.heldout))
    assert tokens == 64 * 200 * 2


def test_run_new__reject_when_the_file_exists(texts: str, tmp_path: Path) -> None:
    (tmp_path / "a.run").write_bytes(b"precious")
    made = iota("run", "new", "--data", texts, "--out", tmp_path / "a.run", home=tmp_path / "home")
    assert made.returncode == 2
    assert b"is not overwritten" in made.stderr
    assert (tmp_path / "a.run").read_bytes() == b"precious"
    assert not (tmp_path / "home").exists(), "nothing was packed"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--config", "nothing"), b"no config of that name: use one of 1.5b, 100b, 15b, tiny"),
        (("--data", "/nowhere/*.txt"), b"no file matches"),
        (("--data", "TEXTS", "--dataset", "x"), b"not both"),
        (("--dataset", "x"), b"needs its --revision"),
        (("--data", "TEXTS", "--revision", "x"), b"go with --dataset"),
        (("--subset", "x"), b"go with --dataset"),
        (("--data", "TEXTS", "--tokenizer", "absent.json"), b"token"),
        (("--data", "TEXTS", "--store", "/dev/null"), b"cannot make the folder"),
        (("--data", "ONE", "--store", "shards"), b"too small"),
    ],
)
def test_run_new__reject_in_one_line(words: tuple[str, ...], reason: bytes, texts: str, tmp_path: Path) -> None:
    meant = {"TEXTS": texts, "ONE": texts.replace("*", "00")}
    out = tmp_path / "a.run"
    made = iota("run", "new", *(meant.get(w, w) for w in words), "--out", out, home=tmp_path, cwd=tmp_path)
    assert made.returncode == 2, made.stderr
    assert reason in made.stderr
    assert made.stderr.count(b"\n") == 1
    assert not out.exists()


def test_run_show__tells_all_of_a_run(texts: str, tmp_path: Path) -> None:
    out = tmp_path / "a.run"
    iota("run", "new", "--data", texts, "--out", out, home=tmp_path)
    spec = RunSpec.from_bytes(out.read_bytes())
    text = shown(out)
    assert spec.run_id.hex() in text
    assert "4 bytes per token forward (128x)" in text
    sheet = json.loads(shown(out, "--json"))
    assert sheet["run_id"] == spec.run_id.hex()
    assert sheet["ratio"] == {"forward": 128, "backward": 128}
    assert sheet["data"]["train"]["num_shards"] == 1
    expected = figures_of(spec)
    assert [stage["num_parameters"] for stage in sheet["stages"]] == [own.num_parameters for own in expected]
    for stage, own in zip(sheet["stages"], expected, strict=True):
        parts = ("weight_bytes", "gradient_bytes", "optimizer_bytes")
        assert sum(stage[part] for part in parts) == own.training_bytes
        assert stage["activation_bytes"] > 8 * 128 * 128 * 4


@pytest.mark.parametrize(
    ("name", "billions", "num_stages", "width", "codes"),
    [
        ("1.5b.toml", 1.52, 3, 2048, 63),
        (str(CONFIGS / "15b.toml"), 15.17, 10, 5120, 159),
        ("100b", 100.2, 28, 8192, 255),
    ],
)
def test_run_show__tells_what_runs_of_iotas_sizes_ask(  # noqa: PLR0917 - a row of the table
    name: str,
    billions: float,
    num_stages: int,
    width: int,
    codes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """IOTA's sizes, the 100B's shape our own; 2048 channels in 64 bytes are its 32 numbers in bfloat16: 128x."""
    monkeypatch.chdir(tmp_path)
    sheet = json.loads(shown(name, "--json"))
    assert sheet["run_id"] is None
    assert len(sheet["stages"]) == num_stages == load_plan(find_config(name)).model.num_stages
    assert sheet["model"]["width"] == width
    assert sheet["totals"]["num_parameters"] / 1e9 == pytest.approx(billions, rel=0.01)
    assert sheet["totals"]["num_parameters"] == sum(stage["num_parameters"] for stage in sheet["stages"])
    assert sheet["bytes_per_token"]["backward"] == codes + 1
    assert sheet["bytes_per_token"]["forward"] <= 4 * width / 128
    assert min(sheet["ratio"].values()) >= 128
    for stage in sheet["stages"]:
        assert stage["weight_bytes"] == stage["gradient_bytes"] == 4 * stage["num_parameters"]
        assert stage["optimizer_bytes"] >= stage["weight_bytes"]
        assert stage["activation_bytes"] > 0
    text = shown(name)
    assert f"{sheet['bytes_per_token']['forward']} bytes per token forward" in text


def test_run_show__reject_what_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "noise.run"
    path.write_bytes(b"noise")
    refused = iota("run", "show", path, home=tmp_path)
    assert refused.returncode == 3
    assert b"noise.run is no run's spec" in refused.stderr
    assert refused.stderr.count(b"\n") == 1


def test_configs__are_those_of_the_checkout() -> None:
    assert config_names() == sorted(path.stem for path in CONFIGS.glob("*.toml"))
    assert find_config("tiny") == CONFIGS / "tiny.toml"
