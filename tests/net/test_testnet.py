"""`iota-p2p testnet` with real processes and daemons: it trains, survives kills, goes on, and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from iota_p2p.home_lock import is_home_locked
from iota_p2p.run.configs import find_config
from iota_p2p.run.corpus import files
from iota_p2p.run.founding import found_run
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.run_files import SHARDS_NAME
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_testnet.testnet_home import TestnetHome, with_stages

pytestmark = pytest.mark.net
# A loaded machine imports torch for many seconds.
PATIENCE_S = 120
NUM_PEERS = 3


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Yield a folder for all temporary files of a testnet, with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="tn-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(64):
        (folder / f"{number:02d}.txt").write_text(f"text number {number} says {number * number}. " * 200)
    return f"{folder}/*.txt"


class Launched:
    """A testnet's launcher and what it has printed."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._partial = ""

    async def until(self, is_so: Callable[[str], object]) -> str:
        """Read on to a line of which this is so."""
        assert self.process.stdout is not None
        while data := await self.process.stdout.receive_some():
            *lines, self._partial = (self._partial + data.decode()).split("\n")
            self.lines += lines
            for line in lines:
                if is_so(line):
                    return line
        pytest.fail("\n".join(["the testnet ended before that:", *self.lines]))

    async def end(self) -> int:
        """Read to the end and return the exit code."""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.lines += data.decode().split("\n")
        return await self.process.wait()

    def peer_ids(self) -> dict[str, str]:
        """Return the id of each peer that came up, by its number."""
        found = (re.search(r"peer (\d+) is up: (\w+)", line) for line in self.lines)
        return {match[1]: match[2] for match in found if match}


@asynccontextmanager
async def launched(scratch: Path, *words: str | Path, patience_s: float = PATIENCE_S) -> AsyncIterator[Launched]:
    """Start a testnet in a process group of its own; nothing of that group may be left afterwards."""
    # A shell that runs the tests in the background ignores Ctrl-C on behalf of all its children; a user's does not.
    attentive = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = attentive + "from iota_p2p.cli.main import main; main()"
    command = [sys.executable, "-c", program, "testnet", "--peers", str(NUM_PEERS)]
    if "--settle" not in words:
        command.append("--no-settle")  # two more processes, which only one test is about
    process = await trio.lowlevel.open_process(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    try:
        with trio.fail_after(patience_s):
            yield Launched(process)
    finally:
        process.kill()
        await process.wait()


async def assert_all_gone(process: trio.Process, scratch: Path, home: Path) -> None:
    """Fail unless fork server, peers and daemons end within seconds; the daemons' flags name the scratch folder."""
    homes = [home / "peers" / f"{number:02d}" for number in range(1, NUM_PEERS + 1)]
    left: list[str] = []
    for _ in range(100):
        left = [str(path) for path in homes if is_home_locked(path)]
        left += [line for line in command_lines() if str(scratch) in line or str(home) in line]
        left += ["the fork server"] if group_exists(process.pid) else []
        if not left:
            return
        await trio.sleep(0.1)
    pytest.fail(f"left behind: {left}")


def command_lines() -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True)
    return listed.stdout.splitlines()


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def remnants(scratch: Path) -> list[Path]:
    """Return our temporary files; torch leaves an empty cache beside them."""
    return list(scratch.glob("iota*"))


def make_run(home: Path, texts: str) -> None:
    """Put a run with short epochs into a testnet's home: results come sooner."""
    made = TestnetHome(home, home)
    home.mkdir()
    plan = with_stages(load_plan(find_config("tiny")), 1)
    plan = plan.model_copy(update={"epoch": plan.epoch.model_copy(update={"target_microbatches": 50})})
    store = ShardStore(made.peer(1) / SHARDS_NAME)
    made.run_file.write_bytes(found_run(plan, files(texts), ByteTokenizer(), store, seed=0).to_bytes())


def audited(home: Path, contract: str) -> Any:
    """Bring a testnet's chain back to life and return what `audit chain` says of it."""
    program = "from iota_p2p.cli.main import main; main()"
    command = [sys.executable, "-c", program, "chain", "dev", "--json", "--attached", "--state", "chain/chain.log"]
    with subprocess.Popen(command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as chain:
        assert chain.stdout is not None
        url = json.loads(chain.stdout.readline())["rpc_url"]
        verb = [sys.executable, "-c", program, "audit", "chain", str(home), "--rpc", url, "--contract", contract]
        done = subprocess.run([*verb, "--json"], check=False, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def has_trained(line: str) -> bool:
    match = re.search(r"\| ([\d,]+) tokens \|", line)
    return match is not None and match[1] != "0"


async def test_testnet__trains_survives_a_kill_goes_on_and_leaves_nothing(
    scratch: Path, tmp_path: Path, texts: str
) -> None:
    home, result = tmp_path / "home", tmp_path / "result.json"
    words = ("--home", home, "--summary", result)
    async with launched(scratch, *words, "--data", texts, "--kill", "2@4s+1s") as first:
        await first.until(lambda line: "peer 2 killed, back in 1 s" in line)
        await first.until(lambda line: "peer 2 is up" in line)
        await first.until(has_trained)
        os.killpg(first.process.pid, signal.SIGINT)  # as Ctrl-C does: to everybody in the terminal
        with trio.fail_after(8):
            assert await first.end() == 130, first.lines
        await assert_all_gone(first.process, scratch, home)
    summary = json.loads(result.read_text())
    assert summary["tokens"] > 0
    assert (summary["restarts"], summary["unexpected_ends"]) == (1, 0)
    assert remnants(scratch) == []
    assert len(set(first.peer_ids().values())) == NUM_PEERS
    async with launched(scratch, *words) as second:
        await second.until(lambda line: f"{NUM_PEERS} of {NUM_PEERS} peers are up" in line)
        assert second.peer_ids() == first.peer_ids()
        await second.until(has_trained)
        second.process.kill()  # the launcher alone, as the system would
        await second.process.wait()
        await assert_all_gone(second.process, scratch, home)


async def test_testnet__ends_well_after_an_epoch(scratch: Path, tmp_path: Path, texts: str) -> None:
    home, result = tmp_path / "home", tmp_path / "result.json"
    words = ("--home", home, "--data", texts, "--epochs", "1", "--stages", "2", "--summary", result)
    async with launched(scratch, *words) as testnet:
        assert await testnet.end() == 0, testnet.lines
        await assert_all_gone(testnet.process, scratch, home)
    summary = json.loads(result.read_text())
    assert summary["num_epochs"] >= 1
    assert summary["stages"] == 2
    assert summary["microbatches"]["completed"] * 1024 == summary["tokens"] > 0
    assert summary["train_loss"]["last"] < summary["train_loss"]["first"]


async def test_testnet__writes_its_summary_however_early_ctrl_c_comes(scratch: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    async with launched(scratch, "--home", tmp_path / "home", "--summary", result) as testnet:
        await testnet.until(lambda line: line.startswith("home"))
        testnet.process.send_signal(signal.SIGINT)
        assert await testnet.end() == 130, testnet.lines
        await assert_all_gone(testnet.process, scratch, tmp_path / "home")
    assert json.loads(result.read_text())["tokens"] == 0


async def test_testnet__fails_when_nothing_is_trained(scratch: Path, tmp_path: Path, texts: str) -> None:
    home = tmp_path / "home"
    async with launched(scratch, "--home", home, "--data", texts, "--kill", "1@0s", "--minutes", "0.01") as testnet:
        assert await testnet.end() == 1, testnet.lines
        await assert_all_gone(testnet.process, scratch, home)
    assert "the testnet failed: nothing was trained" in "\n".join(testnet.lines)


async def test_testnet__settles_its_epochs_pays_everybody_and_goes_on_after_a_kill(
    scratch: Path, tmp_path: Path, texts: str
) -> None:
    home, result = tmp_path / "home", tmp_path / "result.json"
    make_run(home, texts)
    words = ("--settle", "--home", home, "--summary", result)
    # Validators that are late leave an epoch without a result; on a full machine it may be the second or third that has
    # one.
    async with launched(scratch, *words, patience_s=3 * PATIENCE_S) as killed:
        settled = await killed.until(lambda line: "is settled by 3 of 3 seats" in line)
        killed.process.kill()  # the launcher alone, before anything is claimed
        await killed.process.wait()
        await assert_all_gone(killed.process, scratch, home)
    epoch = settled.split(" is settled")[0].split()[-1]
    async with launched(scratch, *words) as testnet:
        await testnet.until(lambda line: f"epoch {epoch} is paid" in line)
        testnet.process.send_signal(signal.SIGINT)
        assert await testnet.end() == 130, testnet.lines
        await assert_all_gone(testnet.process, scratch, home)
    settlement = json.loads(result.read_text())["settlement"]
    assert settlement["audit"] == "clean"
    assert settlement["epochs_settled"] >= 1
    assert settlement["claims_paid"] == NUM_PEERS * settlement["epochs_settled"]
    assert set(settlement["paid"]) == set(testnet.peer_ids().values())
    assert sum(settlement["paid"].values()) == settlement["total_paid"]
    told = audited(home, settlement["contract"])
    assert {name: told[name] for name in ("epochs_settled", "claims_paid", "total_paid")} == {
        name: settlement[name] for name in ("epochs_settled", "claims_paid", "total_paid")
    }
