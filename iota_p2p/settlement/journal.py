"""The journal: every transaction we ever signed, on disk before anybody else can have seen it.

A transaction may be mined once per nonce, and a signed one may be sent any number of times. So nothing is paid twice as
long as one purpose never has two transactions that can both be mined: what is journaled for a purpose is sent again,
or replaced under its own nonce, and never beside it.

Whether a transaction was mined is not kept: the chain knows, and after a reorganisation it may have changed its mind.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iota_p2p.settlement.errors import ChainError

FILE_NAME = "settlement.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    chain BLOB NOT NULL,      -- which chain, by its genesis: a local one begins anew with the same id
    account BLOB NOT NULL,    -- whose nonces
    purpose TEXT NOT NULL,    -- what it is for, as settle/5/0
    nonce INTEGER NOT NULL,
    max_fee INTEGER NOT NULL, -- wei per gas; replacements ask more
    hash BLOB NOT NULL,
    raw BLOB NOT NULL,        -- the signed transaction
    UNIQUE (chain, hash)
)
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction.

    Attributes:
        purpose: what it is for; the same words mean the same purpose for ever.
        nonce: the account's; attempts with one nonce exclude each other.
        max_fee: wei per gas it may cost at most.
        hash: its name on the chain.
        raw: what is sent.
    """

    purpose: str
    nonce: int
    max_fee: int
    hash: bytes
    raw: bytes


class Journal:
    """An open journal of one account on one chain; `open_journal` opens one."""

    def __init__(self, connection: sqlite3.Connection, chain: bytes, account: bytes) -> None:
        self._connection = connection
        self._scope = (chain, account)

    def attempts(self, purpose: str | None = None) -> list[Attempt]:
        """Return what was signed for a purpose, or for all, in the order of signing."""
        query = "SELECT purpose, nonce, max_fee, hash, raw FROM attempts WHERE chain = ? AND account = ?"
        values: tuple[bytes | str, ...] = self._scope
        if purpose is not None:
            query, values = query + " AND purpose = ?", (*values, purpose)
        return [Attempt(*row) for row in self._connection.execute(query + " ORDER BY rowid", values)]

    def add_first(self, next_nonce: int, sign: Callable[[int], Attempt]) -> Attempt:
        """Sign with the next free nonce and keep it; two processes with one account get two nonces.

        Args:
            next_nonce: the chain's idea of it; ours is higher if something of ours is not mined yet.
            sign: makes the attempt for a nonce.
        """
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                query = "SELECT max(nonce) FROM attempts WHERE chain = ? AND account = ?"
                (highest,) = self._connection.execute(query, self._scope).fetchone()
                attempt = sign(next_nonce if highest is None else max(next_nonce, highest + 1))
                self._insert(attempt)
        except sqlite3.Error as error:
            raise ChainError(f"cannot write the journal: {error}") from error
        return attempt

    def add_replacement(self, attempt: Attempt) -> None:
        """Keep an attempt that takes an earlier one's nonce."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._insert(attempt)
        except sqlite3.Error as error:
            raise ChainError(f"cannot write the journal: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _insert(self, attempt: Attempt) -> None:
        row = (*self._scope, attempt.purpose, attempt.nonce, attempt.max_fee, attempt.hash, attempt.raw)
        self._connection.execute("INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def open_journal(path: Path, chain: bytes, account: bytes) -> Journal:
    """Open or create a journal.

    Args:
        path: the file; it holds no secrets, and losing it means waiting until all that is pending is mined.
        chain: the hash of the chain's first block.
        account: 20 bytes, whose transactions these are.

    Raises:
        ChainError: if it cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A commit that returns is on the disk: what is sent afterwards can never be forgotten.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_SCHEMA)
    except (sqlite3.Error, OSError) as error:
        raise ChainError(f"cannot open the journal {path}: {error}") from error
    return Journal(connection, chain, account)
