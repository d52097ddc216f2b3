"""One process per home folder: two peers with one identity and one log would fight over both."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iota_p2p_crypto.errors import UserError

LOCK_FILE_NAME = "lock"
_ATTEMPTS, _PAUSE_S = 4, 0.05


@contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Hold a home folder (made if missing, readable by its owner only) until the context ends.

    The system drops the lock with the process, however it ends: there is nothing stale to clean up.

    Raises:
        UserError: if another process holds it, or the folder cannot be used.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (home / LOCK_FILE_NAME).open("ab")
    except OSError as error:
        raise UserError(f"cannot use the home folder {home}: {error.strerror}") from error
    with file:
        if not _lock_soon(file.fileno()):
            raise UserError(f"another peer is running in {home}: stop it, or give this one its own --home")
        yield


def is_home_locked(home: Path) -> bool:
    """Return whether a process holds a home folder now."""
    try:
        with (home / LOCK_FILE_NAME).open("rb") as file:
            return not _try_lock(file.fileno())
    except FileNotFoundError:
        return False


def _lock_soon(descriptor: int) -> bool:
    """Try a few times: `is_home_locked` of another process holds the lock for a moment."""
    for _ in range(_ATTEMPTS):
        if _try_lock(descriptor):
            return True
        time.sleep(_PAUSE_S)
    return False


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
