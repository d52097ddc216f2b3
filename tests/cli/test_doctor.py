"""`iota-p2p doctor` on one machine: real files, folders, ports and processes; no network but loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from iota_p2p.doctor import bootstrap, home, machine, node
from iota_p2p.doctor.finding import CHECKS, Finding, Status
from iota_p2p.home_lock import lock_home
from iota_p2p.key_store import create_key
from iota_p2p.membership.greeting import Greeted
from iota_p2p_crypto.errors import LocalProtocolError
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.hello import Hello

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", "doctor"]
PEER_ID = Identity.from_seed(b"\x01" * 32).peer_id


def test_docs__hold_the_table_of_codes() -> None:
    rows = re.findall(r"^\| (D\d{3}) \| ([^|]+) \|", (ROOT / "docs/doctor.md").read_text(), re.MULTILINE)
    assert dict(rows) == dict(CHECKS)
    assert len(rows) == len(CHECKS)


def test_finding__needs_a_known_code_and_a_fix() -> None:
    with pytest.raises(LocalProtocolError):
        Finding("D999", Status.OK, "")
    with pytest.raises(LocalProtocolError):
        Finding("D101", Status.FAIL, "broken")


async def test_daemon__ok_when_installed() -> None:
    assert (await machine.check_daemon(None)).status is Status.OK


@pytest.mark.parametrize(
    ("content", "mode", "cause"),
    [
        (b"#!/bin/sh\necho hello\n", 0o755, "not the libp2p daemon"),
        (b"\x7fELF of another machine", 0o755, "cannot be run"),
        (b"#!/bin/sh\n", 0o644, "No executable daemon"),
    ],
)
async def test_daemon__fail_when_it_is_none(tmp_path: Path, content: bytes, mode: int, cause: str) -> None:
    path = tmp_path / "p2pd"
    path.write_bytes(content)
    path.chmod(mode)
    finding = await machine.check_daemon(path)
    assert (finding.code, finding.status) == ("D101", Status.FAIL)
    assert cause in finding.cause
    assert "--p2pd" in finding.fix


def test_home__ok_when_it_can_be_made(tmp_path: Path) -> None:
    assert home.check_home(tmp_path).status is Status.OK
    assert home.check_home(tmp_path / "a" / "b").status is Status.OK
    assert list(tmp_path.iterdir()) == [], "the doctor changes nothing"


def test_home__fail_when_it_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert home.check_home(path).status is Status.FAIL


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_home__fail_when_it_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    finding = home.check_home(tmp_path / "home")
    tmp_path.chmod(0o700)
    assert (finding.status, f"chown -R $(id -u) {tmp_path}" in finding.fix) == (Status.FAIL, True)


def test_identity__is_used_when_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    assert home.check_identity(path)[0].status is Status.OK
    assert home.check_identity(path)[1] is None
    identity = create_key(path)
    finding, loaded = home.check_identity(path)
    assert (finding.status, loaded) == (Status.OK, identity)


def test_identity__skipped_when_encrypted(tmp_path: Path) -> None:
    create_key(tmp_path / "key", b"secret")
    finding, loaded = home.check_identity(tmp_path / "key")
    assert (finding.status, loaded) == (Status.SKIPPED, None)


def test_identity__fail_when_open_to_others_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_key(path)
    path.chmod(0o644)
    finding, loaded = home.check_identity(path)
    assert (finding.status, loaded, finding.fix) == (Status.FAIL, None, f"run 'chmod 600 {path}'")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:40])
    finding, loaded = home.check_identity(path)
    assert (finding.status, loaded, "from your copy" in finding.fix) == (Status.FAIL, None, True)


def test_lock__warns_while_the_home_is_held(tmp_path: Path) -> None:
    with lock_home(tmp_path):
        assert home.check_lock(tmp_path).status is Status.WARN
    assert home.check_lock(tmp_path).status is Status.OK


def test_disk__judged_by_what_is_free(tmp_path: Path) -> None:
    assert f"free for {tmp_path}" in machine.check_disk(tmp_path / "home").cause
    judged = [machine.judge_disk(tmp_path, size).status for size in (2**28, 2**30, 2**40)]
    assert judged == [Status.FAIL, Status.WARN, Status.OK]


def test_memory__judged_by_what_is_available(tmp_path: Path) -> None:
    assert machine.check_memory().status is not Status.SKIPPED
    judged = [machine.judge_memory(size).status for size in (2**28, 2**30, 2**35)]
    assert judged == [Status.FAIL, Status.WARN, Status.OK]
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       4000 kB\nMemAvailable:   1000 kB\n")
    assert machine._available_memory_bytes(meminfo) == 1_024_000


async def test_torch__fail_when_it_cannot_be_imported() -> None:
    finding = await machine.check_torch((sys.executable, "-I", "-S"))  # without installed packages
    assert (finding.status, "No module named 'torch'" in finding.cause) == (Status.FAIL, True)
    assert "-m pip install" in finding.fix


def test_listen__fail_when_taken_foreign_or_malformed() -> None:
    assert node.check_listen("/ip4/127.0.0.1/tcp/0").status is Status.OK
    with socket.create_server(("127.0.0.1", 0)) as server:
        finding = node.check_listen(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")
        assert (finding.status, "ss -ltnp" in finding.fix) == (Status.FAIL, True)
    finding = node.check_listen("/ip4/192.0.2.1/tcp/4001")
    assert (finding.status, "/ip4/0.0.0.0/tcp/4001" in finding.fix) == (Status.FAIL, True)
    for malformed in ("127.0.0.1:4001", "/ip4/127.0.0.1/tcp/70000", ""):
        assert node.check_listen(malformed).status is Status.FAIL


@pytest.mark.parametrize(
    ("offsets_s", "status", "word"),
    [
        ([0.4], Status.OK, "behind"),
        ([-8.0], Status.WARN, "ahead of"),
        ([45.0], Status.FAIL, "refused"),
        ([0.1, 0.2, 900.0], Status.OK, "3 peers (median)"),  # one wrong clock does not put the others in the wrong
    ],
)
def test_clock__judged_by_the_median(offsets_s: list[float], status: Status, word: str) -> None:
    hello = Hello(oldest_version=1, newest_version=1, run_id=bytes(32), software="x", clock_ms=0)
    greetings = {PeerId(str(i)): Greeted(hello, 1, offset_s, 0.01) for i, offset_s in enumerate(offsets_s)}
    finding = node.judge_clock(greetings)
    assert (finding.code, finding.status) == ("D204", status)
    assert word in finding.cause


@pytest.mark.parametrize(
    "address", ["", "localhost:4001", "/ip4/127.0.0.1/tcp/4001", f"/ip4/1.2.3/tcp/1/p2p/{PEER_ID}"]
)
def test_bootstrap__fail_when_malformed(address: str) -> None:
    finding, parsed = bootstrap.check_form(address)
    assert (finding.code, finding.status, parsed) == ("D301", Status.FAIL, None)


async def test_bootstrap__skipped_when_relayed() -> None:
    _, address = bootstrap.check_form(f"/ip4/127.0.0.1/tcp/1/p2p/{PEER_ID}/p2p-circuit/p2p/{PEER_ID}")
    assert address is not None
    assert (await bootstrap.check_tcp(address)).status is Status.SKIPPED


def test_command__prints_a_list_and_exits_1_when_something_failed(tmp_path: Path) -> None:
    daemon = tmp_path / "p2pd"
    daemon.write_text("#!/bin/sh\n")
    daemon.chmod(0o755)
    words = ["--json", "--home", str(tmp_path / "home"), "--p2pd", str(daemon), "--bootstrap", "nonsense"]
    done = subprocess.run([*COMMAND, *words], check=False, capture_output=True, timeout=180)
    assert (done.returncode, done.stderr) == (1, b"")
    findings = {finding["code"]: finding for finding in json.loads(done.stdout)}
    assert set(findings) == set(CHECKS)
    assert {code for code in findings if findings[code]["status"] == "fail"} == {"D101", "D301"}
    assert findings["D202"]["cause"] == "skipped because the daemon does not run (D101) or cannot listen (D201)"
    assert all(finding["fix"] for finding in findings.values() if finding["status"] == "fail")
    assert not (tmp_path / "home").exists()


def test_command__exits_130_on_ctrl_c_while_a_check_waits(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{PEER_ID}"
        words = ["--home", str(tmp_path), "--bootstrap", address]
        process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        while b"D302" not in (line := process.stdout.readline()):
            assert line, "the doctor ended before it had dialled"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in errors
