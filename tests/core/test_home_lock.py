"""The lock on a home folder, with real processes."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iota_p2p.home_lock import LOCK_FILE_NAME, is_home_locked, lock_home
from iota_p2p_crypto.errors import UserError

HOLD = """
import sys
from pathlib import Path
from iota_p2p.home_lock import lock_home
with lock_home(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the lock."""
    import_path = {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=import_path,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_lock__makes_a_home_that_only_its_owner_can_enter(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    with lock_home(home):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert is_home_locked(home)
    assert not is_home_locked(home)


def test_home_without_lock_file__is_not_locked(tmp_path: Path) -> None:
    assert not is_home_locked(tmp_path / "missing")
    assert not is_home_locked(tmp_path)


def test_second_lock__is_refused_in_the_same_process_and_names_the_fix(tmp_path: Path) -> None:
    with (
        lock_home(tmp_path),
        pytest.raises(UserError, match="--home"),
        lock_home(tmp_path),
    ):
        pass


def test_lock_of_another_process__is_refused_until_that_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert is_home_locked(tmp_path)
        with pytest.raises(UserError, match="another peer is running"), lock_home(tmp_path):
            pass
        process.kill()
        process.wait()
        with lock_home(tmp_path):
            assert is_home_locked(tmp_path)


def test_lock__is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock_home(tmp_path):
        raise ZeroDivisionError
    with lock_home(tmp_path):
        pass


@pytest.mark.parametrize("in_the_way", ["home", LOCK_FILE_NAME])
def test_lock__is_refused_when_the_folder_cannot_be_used(tmp_path: Path, in_the_way: str) -> None:
    home = tmp_path / "home"
    if in_the_way == "home":
        home.write_text("a file")
    else:
        (home / LOCK_FILE_NAME).mkdir(parents=True)
    with pytest.raises(UserError, match="cannot use the home folder"), lock_home(home):
        pass
