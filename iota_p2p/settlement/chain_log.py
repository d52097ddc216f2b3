"""What a local chain was told, on disk: told the same again, it is the same chain with the same money.

A text file: a line for the genesis, then one for each transaction, `block time` and its bytes in hex. A line is written
when its transaction is mined and before its sender hears of it, so that whoever had an answer finds it kept; a line
that a death cut off was answered to nobody, and is dropped. Blocks without transactions are not kept: after a restart
numbers and hashes of blocks are others, while accounts, times and logs are the same.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from iota_p2p_crypto.errors import UserError


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction and the time of its block, in Unix seconds."""

    time_s: int
    raw: bytes


class ChainLog:
    """An open log; `open_chain_log` opens one.

    Attributes:
        genesis_s: when the chain began.
        num_accounts: how many it funded then.
        mined: what it holds from earlier lives, in order.
    """

    def __init__(self, file: BinaryIO, genesis_s: int, num_accounts: int, mined: list[Mined]) -> None:
        self.genesis_s = genesis_s
        self.num_accounts = num_accounts
        self.mined = mined
        self._file = file

    def add(self, one: Mined) -> None:
        """Keep a transaction; a process that is killed afterwards has it on disk."""
        self._file.write(f"{one.time_s} {one.raw.hex()}\n".encode())


@contextmanager
def open_chain_log(path: Path, num_accounts: int) -> Iterator[ChainLog]:
    """Open a log, or begin one with so many funded accounts; one process at a time.

    Raises:
        UserError: if it cannot be used, is in use, or is no such log.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            *lines, torn = file.read().split(b"\n")
            file.truncate(file.seek(0, os.SEEK_END) - len(torn))
            if not lines:
                lines = [json.dumps({"genesis_s": int(time.time()), "accounts": num_accounts}).encode()]
                file.write(lines[0] + b"\n")
            yield _read(file, path, lines)
    except BlockingIOError as error:
        raise UserError(f"another chain is running on {path}") from error
    except OSError as error:
        raise UserError(f"cannot use the chain's state {path}: {error.strerror}") from error


def _read(file: BinaryIO, path: Path, lines: list[bytes]) -> ChainLog:
    try:
        head = json.loads(lines[0])
        pairs = [line.split(b" ") for line in lines[1:]]
        mined = [Mined(int(time_s), bytes.fromhex(raw.decode("ascii"))) for time_s, raw in pairs]
        return ChainLog(file, int(head["genesis_s"]), int(head["accounts"]), mined)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the state of a local chain: {error}") from error
