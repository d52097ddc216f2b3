"""`iota-p2p key`, run as its user runs it: a process, its output, its exit code and what is on disk."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest


def iota(*words: str | Path, home: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command with a home of its own."""
    command = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", *map(str, words)]
    environment = {**os.environ, "IOTA_P2P_HOME": str(home)}
    return subprocess.run(command, check=False, capture_output=True, input=stdin, env=environment, timeout=60)


def test_key_new__writes_a_private_file_and_show_agrees(tmp_path: Path) -> None:
    made = iota("key", "new", "--json", home=tmp_path)
    assert made.returncode == 0, made.stderr
    fields = json.loads(made.stdout)
    path = tmp_path / "identity.pem"
    assert fields == {"path": str(path), "peer_id": fields["peer_id"], "encrypted": False}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["identity.pem"], "no temporary file is left"
    shown = json.loads(iota("key", "show", "--json", home=tmp_path).stdout)
    assert shown["peer_id"] == fields["peer_id"]


def test_key_new__reject_when_the_file_exists(tmp_path: Path) -> None:
    assert iota("key", "new", home=tmp_path).returncode == 0
    before = (tmp_path / "identity.pem").read_bytes()
    again = iota("key", "new", home=tmp_path)
    assert again.returncode == 2
    assert b"is not overwritten" in again.stderr
    assert again.stderr.count(b"\n") == 1
    assert (tmp_path / "identity.pem").read_bytes() == before


def test_key_show__reject_when_others_may_read(tmp_path: Path) -> None:
    iota("key", "new", home=tmp_path)
    (tmp_path / "identity.pem").chmod(0o640)
    shown = iota("key", "show", home=tmp_path)
    assert shown.returncode == 2
    assert b"chmod 600" in shown.stderr


def test_key_show__needs_the_passphrase_of_an_encrypted_key(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(b"correct horse\n")
    wrong.write_bytes(b"battery staple\n")
    assert iota("key", "new", "--passphrase-file", right, home=tmp_path).returncode == 0
    shown = iota("key", "show", "--passphrase-file", right, "--json", home=tmp_path)
    assert json.loads(shown.stdout)["encrypted"] is True
    refused = iota("key", "show", "--passphrase-file", wrong, home=tmp_path)
    assert (refused.returncode, b"wrong passphrase" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("contents", "reason"), [(b"", b"not a key file"), (b"\x00" * 9000, b"at most 4096"), (b"hello", b"not a key file")]
)
def test_key_show__reject_garbage(tmp_path: Path, contents: bytes, reason: bytes) -> None:
    path = tmp_path / "garbage.pem"
    path.write_bytes(contents)
    path.chmod(0o600)
    shown = iota("key", "show", path, home=tmp_path)
    assert shown.returncode == 2
    assert reason in shown.stderr
    assert shown.stderr.count(b"\n") == 1


def test_key_show__reject_missing(tmp_path: Path) -> None:
    shown = iota("key", "show", home=tmp_path)
    assert shown.returncode == 2
    assert b"iota-p2p key new" in shown.stderr
