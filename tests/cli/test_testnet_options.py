"""`iota-p2p testnet`: its options, and what it refuses before it starts anything."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer.main

from iota_p2p.cli.commands import app
from iota_p2p.run.configs import find_config
from iota_p2p.run.plan_file import load_plan
from iota_p2p_crypto.errors import MalformedError, UserError
from iota_p2p_testnet.session import Wishes, hold_session, prepare
from iota_p2p_testnet.testnet_home import TestnetHome, with_stages


def wishes(home: Path, **changed: object) -> Wishes:
    fields: dict[str, object] = {
        "num_peers": 2,
        "num_stages": None,
        "epochs": None,
        "minutes": 0.01,
        "run_file": None,
        "data": (),
        "home": home,
        "kills": (),
        "seed": 0,
        "summary": None,
        "plain": True,
    }
    return Wishes(**(fields | changed))  # type: ignore[arg-type] # names are checked by the dataclass itself


@pytest.fixture
def texts(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(64):
        (folder / f"{number:02d}.txt").write_text(f"text {number} " * 200)
    return f"{folder}/*.txt"


@pytest.fixture
def home(tmp_path: Path, texts: str) -> TestnetHome:
    """Return a home with a run in it, as an earlier start leaves it."""
    made = TestnetHome(tmp_path / "home", tmp_path)
    made.folder.mkdir()
    made.found(2, [texts], seed=0)
    return made


def test_testnet__has_these_options_and_no_others() -> None:
    command = typer.main.get_command(app).commands["testnet"]  # type: ignore[attr-defined] # a click group
    options = {name for parameter in command.params for name in parameter.opts}
    assert options == {
        "--peers",
        "--stages",
        "--epochs",
        "--minutes",
        "--run",
        "--data",
        "--home",
        "--kill",
        "--adversary",
        "--seed",
        "--summary",
        "--plain",
        "--settle",
    }


def test_testnet__names_the_wrong_option_and_leaves_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", "testnet", "--kill", "someone"]
    done = subprocess.run([*command, "--home", str(tmp_path)], check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--kill 'someone' is not understood" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "no file matches"), (b"\xff\xfe\x00", "is text in UTF-8"), (b"a line\n", "too small")],
)
def test_testnet__refuses_data_of_no_use(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    """In one line, and the next start, with better data, finds no half-made run."""
    home = TestnetHome(tmp_path / "home", tmp_path)
    home.folder.mkdir()
    path = tmp_path / "data.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        prepare(home, wishes(home.folder, data=(str(path),)))
    assert "\n" not in str(caught.value)
    path.write_text("".join(f"line {number} of some text\n" for number in range(40_000)))
    assert prepare(home, wishes(home.folder, data=(str(path),))).data.train


def test_testnet__refuses_a_summary_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        hold_session(wishes(tmp_path / "home", summary=tmp_path / "missing" / "summary.json"))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_with_stages__cuts_evenly(stages: int) -> None:
    model = with_stages(load_plan(find_config("tiny")), stages).model
    sizes = [len(model.blocks_of(stage)) for stage in range(model.num_stages)]
    assert len(sizes) == stages
    assert sum(sizes) == model.num_layers
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("stages", [0, 5])
def test_with_stages__refuses_more_stages_than_layers(stages: int) -> None:
    with pytest.raises(UserError, match="not between 1 and 4"):
        with_stages(load_plan(find_config("tiny")), stages)


def test_found__gives_the_shards_to_the_first_peer_and_the_same_run_again(home: TestnetHome) -> None:
    spec = home.saved_run()
    assert spec is not None
    assert spec.model.num_stages == 2
    shards = {path.name for path in (home.peer(1) / "shards").iterdir()}
    assert shards == {f"{ref.digest}.tokens" for ref in (*spec.data.train, *spec.data.heldout)}


def test_adopt__takes_the_shards_of_run_new_from_the_users_home(
    home: TestnetHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTA_P2P_HOME", str(home.peer(1)))
    other = TestnetHome(tmp_path / "other", tmp_path)
    other.folder.mkdir()
    spec = other.adopt(home.run_file)
    assert spec == home.saved_run() == other.saved_run()
    assert len(list((other.peer(1) / "shards").iterdir())) == len(spec.data.train) + len(spec.data.heldout)


def test_adopt__says_where_it_looked_when_a_shard_is_missing(
    home: TestnetHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTA_P2P_HOME", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"neither in .*other.* nor in .*empty/shards"):
        TestnetHome(tmp_path / "other", tmp_path).adopt(home.run_file)


REFUSALS: Sequence[tuple[dict[str, object], str]] = [
    ({"num_stages": 3}, "the run has 2 stages"),
    ({"data": ("*.md",)}, "has a run with its data already"),
    ({"data": ("*.md",), "run_file": Path("x")}, "--run or --data, not both"),
    ({"run_file": Path("missing.run")}, "cannot read missing.run"),
]


@pytest.mark.parametrize(("changed", "complaint"), REFUSALS)
def test_testnet__refuses_what_does_not_fit_the_homes_run(
    home: TestnetHome, changed: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        prepare(home, wishes(home.folder, **changed))


def test_testnet__refuses_another_run_than_the_homes(home: TestnetHome, texts: str, tmp_path: Path) -> None:
    other = TestnetHome(tmp_path / "other", tmp_path)
    other.folder.mkdir()
    other.found(2, [texts], seed=1)
    with pytest.raises(UserError, match="has another run"):
        prepare(home, wishes(home.folder, run_file=other.run_file))


def test_testnet__refuses_a_file_that_is_no_run(home: TestnetHome, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(MalformedError, match="junk is no run's spec"):
        prepare(home, wishes(home.folder, run_file=tmp_path / "junk"))
