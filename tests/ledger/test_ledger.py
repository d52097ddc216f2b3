"""The ledger: what was committed stays, what was not never was, and we never sign twice."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from iota_p2p.ledger.ledger import FILE_NAME, Fact, LedgerError, open_ledger
from iota_p2p.ledger.schema import VERSION
from iota_p2p_crypto.identity import Identity

SIGNER = Identity.from_seed(bytes(32)).peer_id


def fact(epoch: int, text: bytes = b"fact", kind: str = "score") -> Fact:
    return Fact(kind, epoch, SIGNER, text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def test_facts__are_kept_once_and_found_by_kind_and_epoch(path: Path) -> None:
    with open_ledger(path) as ledger:
        assert ledger.add([fact(1, b"a"), fact(1, b"b"), fact(2, b"c"), fact(1, b"d", "loss-record")]) == 4
        assert ledger.add([fact(1, b"a"), fact(2, b"e")]) == 1
    with open_ledger(path) as ledger:
        assert [item.envelope for item in ledger.facts("score", 1)] == [b"a", b"b"]
        assert [item.envelope for item in ledger.facts("score")] == [b"a", b"b", b"c", b"e"]


def test_forget_before__drops_old_facts_but_neither_kept_kinds_nor_our_log(path: Path) -> None:
    with open_ledger(path) as ledger:
        ledger.add([fact(1, b"a"), fact(3, b"b"), fact(1, b"c", "proof")])
        ledger.sign_once("score", 1, lambda: b"signed")
        assert ledger.forget_before(3, keep=("proof",)) == 1
        assert [item.envelope for item in ledger.facts("score")] == [b"b"]
        assert [item.envelope for item in ledger.facts("proof")] == [b"c"]
        assert [entry.envelope for entry in ledger.own_log()] == [b"signed"]


def test_sign_once__returns_the_first_signature_for_ever(path: Path) -> None:
    with open_ledger(path) as ledger:
        assert ledger.sign_once("score", 7, lambda: b"first") == b"first"
    with open_ledger(path) as ledger:
        assert ledger.sign_once("score", 7, lambda: b"second") == b"first"
        assert ledger.sign_once("score", 8, lambda: b"next") == b"next"
        assert [(entry.position, entry.epoch) for entry in ledger.own_log("score")] == [(0, 7), (1, 8)]


def test_ledger__takes_writes_of_several_threads(path: Path) -> None:
    """A validator signs while facts are being written beside the lane: without a lock one commits for the other."""
    errors: list[Exception] = []

    def write(name: int) -> None:
        try:
            for epoch in range(60):
                ledger.add([fact(epoch, b"%d %d" % (name, epoch))])
        except LedgerError as error:
            errors.append(error)

    with open_ledger(path) as ledger:
        threads = [threading.Thread(target=write, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        signed = [ledger.sign_once("score", epoch, lambda: b"%d" % len(ledger.own_log())) for epoch in range(60)]
        for thread in threads:
            thread.join()
        assert errors == []
        assert signed == [b"%d" % epoch for epoch in range(60)]
        assert len(ledger.facts("score")) == 180


def test_sign_once__leaves_nothing_behind_when_signing_fails(path: Path) -> None:
    def fail() -> bytes:
        raise ValueError("no")

    with open_ledger(path) as ledger:
        with pytest.raises(ValueError, match="no"):
            ledger.sign_once("score", 1, fail)
        assert ledger.own_log() == []
        assert ledger.sign_once("score", 1, lambda: b"later") == b"later"


def test_damaged_file__is_named_and_never_read(path: Path) -> None:
    with open_ledger(path) as ledger:
        ledger.add([fact(epoch, os.urandom(2000)) for epoch in range(50)])
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 5] = os.urandom(4096 * 2)
    path.write_bytes(data)
    with pytest.raises(LedgerError, match="damaged"), open_ledger(path):
        pass


def test_other_file__is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(LedgerError, match="version"), open_ledger(path):
        pass
    path.write_bytes(b"not a database, but long enough to have a header of one" * 10)
    with pytest.raises(LedgerError, match="damaged"), open_ledger(path):
        pass


def test_missing_file__is_not_created_by_a_reader(path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot open"), open_ledger(path, read_only=True):
        pass
    assert not path.exists()


def test_full_disk__keeps_what_was_there(path: Path) -> None:
    with open_ledger(path) as ledger:
        ledger.add([fact(1, b"a")])
        (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
        ledger._connection.execute(f"PRAGMA max_page_count = {pages + 1}")  # SQLite's own full disk
        with pytest.raises(LedgerError, match="full"):
            ledger.add([fact(2, os.urandom(100_000))])
        ledger.add([fact(2, b"small")])
        assert [item.envelope for item in ledger.facts("score")] == [b"a", b"small"]


# Kills itself at the n-th SQL statement SQLite begins (every write goes through one) and says before whether a step
# had been committed. The statements of opening and creating the file count, too.
KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from iota_p2p.ledger import schema
from iota_p2p.ledger.ledger import Fact, open_ledger
import sqlite3
left = int(sys.argv[2])
def count(_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
connect = sqlite3.connect
def traced(*args, **options):
    connection = connect(*args, **options)
    connection.set_trace_callback(count)
    return connection
sqlite3.connect = traced
with open_ledger(Path(sys.argv[1])) as ledger:
    for epoch in range(2):
        ledger.add([Fact("loss-record", epoch, "p", b"%d/%d" % (epoch, i)) for i in range(3)])
        print("added", epoch, flush=True)
        print("signed", ledger.sign_once("score", epoch, lambda: os.urandom(8)).hex(), flush=True)
        ledger.forget_before(epoch)
print("end", flush=True)
"""


@pytest.mark.slow
def test_kill_at_any_statement__loses_nothing_said_and_signs_nothing_twice(path: Path) -> None:
    """Kill the writer at its first statement, its second, ... until it gets through; look at the file each time."""
    for at in range(1, 200):
        for leftover in path.parent.iterdir():
            leftover.unlink()
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_WRITER, str(path), str(at)], capture_output=True, text=True, check=False
        )
        said = killed.stdout.split("\n")
        with open_ledger(path) as ledger:
            signed = [entry.envelope.hex() for entry in ledger.own_log("score")]
            published = [line.split()[1] for line in said if line.startswith("signed")]
            assert signed[: len(published)] == published
            added = [line for line in said if line.startswith("added")]
            kept = {item.epoch for item in ledger.facts("loss-record")}
            assert len(added) == 0 or len(added) - 1 in kept
            for epoch in kept:
                assert len(ledger.facts("loss-record", epoch)) == 3
            for entry in ledger.own_log("score"):
                assert ledger.sign_once("score", entry.epoch, lambda: b"another") == entry.envelope
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert said[-2] == "end"
    assert at > 15  # it was really killed on the way
