"""The tables of a ledger file and how one is opened; everything that touches them is in `ledger.py`.

SQLite in WAL mode with full synchronisation: a transaction is there whole or not at all, whichever instruction the
process was killed at, and once it is committed not even a power cut takes it back.
"""

import sqlite3
from pathlib import Path

from iota_p2p_crypto.errors import IotaError

# Stored in the file; a file of another version is refused, never guessed at.
VERSION = 1
# How long a second process (an audit of a running peer's home) waits for the writer; its transactions take a few ms.
BUSY_TIMEOUT_S = 5.0

_TABLES = """
CREATE TABLE facts (
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    signer TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    envelope BLOB NOT NULL
) STRICT;
CREATE INDEX facts_by_epoch ON facts (kind, epoch);
CREATE TABLE own (
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    UNIQUE (kind, epoch)
) STRICT;
"""


class LedgerError(IotaError):
    """The ledger file cannot be used or written; nobody's fault, and the message says what to do."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a ledger file, creating it unless `read_only`.

    Raises:
        LedgerError: if it is damaged, of another version, missing (read only) or cannot be created.
    """
    try:
        # A worker thread per commit is how trio shells call us; one task at a time does, so threads never overlap.
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise LedgerError(f"cannot open the ledger {path}: {error}") from error
    try:
        _prepare(connection, read_only=read_only)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(
            f"the ledger {path} is damaged ({error}): move it away and start again; "
            "a validator that has signed records should restore it from a copy, lest it contradict itself"
        ) from error
    except LedgerError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, *, read_only: bool) -> None:
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0 and not read_only:
        # One transaction: a kill in the middle leaves an empty file, which the next start fills.
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise LedgerError(
            f"expected a ledger of version {VERSION}, got {version}: it is another program's or a newer one"
        )
