"""`Ledger`: the signed facts a peer keeps, by kind and epoch, and the log of what it signed itself.

Two tables, two promises. *Facts* are envelopes by anybody: kept once each, found by kind and epoch, dropped by epoch.
*Own* entries are what we have signed once per epoch and may never sign differently: `sign_once` commits an
envelope before anybody can have seen it, and returns the committed one ever after, so that a validator killed between
signing and publishing says the same again instead of contradicting itself.
"""

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iota_p2p.ledger.schema import LedgerError, connect
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import PeerId

FILE_NAME = "ledger.sqlite"


@dataclass(frozen=True, slots=True)
class Fact:
    """One signed fact as it came.

    Attributes:
        kind: the name of its domain, or what its keeper calls it.
        epoch: which epoch it is about; retention goes by it.
        signer: who signed it (the first of several).
        envelope: its exact bytes; readers open them again, so that nothing unverified comes out of a file.
    """

    kind: str
    epoch: int
    signer: PeerId
    envelope: bytes


@dataclass(frozen=True, slots=True)
class OwnEntry:
    """One entry of our own log.

    Attributes:
        position: its index in the log, from 0.
        kind, epoch: what it is about; one entry for each pair.
        envelope: what we signed.
    """

    position: int
    kind: str
    epoch: int
    envelope: bytes


class Ledger:
    """An open ledger file; `open_ledger` opens one. Any thread may write; each waits for the others."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # A connection has one transaction at a time, whoever began it. Reentrant: `sign` looks into our log in one.
        self._lock = threading.RLock()

    def add(self, facts: Sequence[Fact]) -> int:
        """Keep facts, all or none; return how many are new.

        Raises:
            LedgerError: if the disk is full or fails; what was kept before still is.
        """
        rows = [(fact.kind, fact.epoch, fact.signer, digest(fact.envelope), fact.envelope) for fact in facts]
        with self._transaction():
            before = self._connection.total_changes
            self._connection.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?)", rows)
            return self._connection.total_changes - before

    def facts(self, kind: str, epoch: int | None = None) -> list[Fact]:
        """Return the facts of a kind, of one epoch or of all, in the order they were kept."""
        query = "SELECT kind, epoch, signer, envelope FROM facts WHERE kind = ?"
        values: tuple[str | int, ...] = (kind,)
        if epoch is not None:
            query, values = query + " AND epoch = ?", (kind, epoch)
        rows = self._connection.execute(query + " ORDER BY rowid", values)
        return [Fact(row[0], row[1], PeerId(row[2]), row[3]) for row in rows]

    def all_facts(self) -> list[Fact]:
        """Return everything kept, and everything we signed: what an audit or a bundle takes."""
        query = "SELECT kind, epoch, signer, envelope FROM facts UNION SELECT kind, epoch, '', envelope FROM own"
        return [Fact(row[0], row[1], PeerId(row[2]), row[3]) for row in self._connection.execute(query)]

    def sign_once(self, kind: str, epoch: int, sign: Callable[[], bytes]) -> bytes:
        """Return what we signed for this kind and epoch; sign and commit it if we have not.

        Raises:
            LedgerError: if it cannot be committed; then nothing was signed that anybody could see.
        """
        with self._transaction():
            found = self._connection.execute(
                "SELECT envelope FROM own WHERE kind = ? AND epoch = ?", (kind, epoch)
            ).fetchone()
            if found is not None:
                envelope: bytes = found[0]
                return envelope
            envelope = sign()
            (length,) = self._connection.execute("SELECT count(*) FROM own").fetchone()
            self._connection.execute("INSERT INTO own VALUES (?, ?, ?, ?)", (length, kind, epoch, envelope))
            return envelope

    def own_log(self, kind: str | None = None) -> list[OwnEntry]:
        """Return what we have signed, oldest first; nothing is ever dropped from it."""
        query = "SELECT position, kind, epoch, envelope FROM own"
        values: tuple[str, ...] = ()
        if kind is not None:
            query, values = query + " WHERE kind = ?", (kind,)
        return [OwnEntry(*row) for row in self._connection.execute(query + " ORDER BY position", values)]

    def forget_before(self, epoch: int, keep: Collection[str] = ()) -> int:
        """Drop the facts of earlier epochs, but for the kinds to keep; return how many. Our own log stays."""
        marks = ", ".join("?" * len(keep))
        with self._transaction():
            query = f"DELETE FROM facts WHERE epoch < ? AND kind NOT IN ({marks})"  # noqa: S608 - marks, not values
            return self._connection.execute(query, (epoch, *keep)).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                text = f"cannot write the ledger: {error}; free some disk space, nothing was lost"
                raise LedgerError(text) from error
            finally:
                if self._connection.in_transaction:  # it failed, and SQLite did not take it back by itself
                    self._connection.execute("ROLLBACK")


@contextmanager
def open_ledger(path: Path, *, read_only: bool = False) -> Iterator[Ledger]:
    """Open a ledger file for as long as the context lasts; raises LedgerError if it cannot be used."""
    connection = connect(path, read_only=read_only)
    try:
        yield Ledger(connection)
    finally:
        connection.close()


__all__ = ["FILE_NAME", "Fact", "Ledger", "LedgerError", "OwnEntry", "open_ledger"]
