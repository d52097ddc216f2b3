"""The folder of a daemon's sockets: private, with a short path, and swept away later if its owner was killed."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir

_PREFIX = "iota-p2p-"
_MAX_FOLDER_CHARS = 70  # leaves room for the private folder's name, /control, and for macOS's limit of 104
# Looked at in one start: sweeping a temporary folder full of them must not hold up a peer.
_MAX_SWEPT = 100


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder (mode 0700) that is removed at the end; remove those that killed owners left behind.

    Its owner holds a lock on the folder itself, which the system drops with the process, however it ends.
    """
    parent = Path(_short_folder())
    _sweep(parent)
    with TemporaryDirectory(prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def _short_folder() -> str:
    """Where the private folder goes: the path of a unix socket may have some 100 bytes, no more."""
    folder = gettempdir()
    return folder if len(folder) <= _MAX_FOLDER_CHARS else "/tmp"  # noqa: S108 - what goes there is private


def _sweep(parent: Path) -> None:
    """Remove our own folders that nobody holds and that have our sockets in them: a new one is empty at first."""
    with suppress(OSError):
        for _, folder in zip(range(_MAX_SWEPT), sorted(parent.glob(f"{_PREFIX}*")), strict=False):
            with suppress(OSError):  # another user's, or one that goes away by itself
                if folder.lstat().st_uid == os.getuid() and not folder.is_symlink() and (folder / "in").is_socket():
                    _remove_unheld(folder)


def _remove_unheld(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError if its owner lives
        rmtree(folder)
    finally:
        os.close(descriptor)
