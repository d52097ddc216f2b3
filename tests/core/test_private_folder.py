"""The folders of daemons' sockets: who removes them when."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iota_p2p.network.private_folder import private_folder


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a temporary folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="pf-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def leave_socket(folder: Path) -> None:
    """Leave in a folder what a killed peer leaves."""
    folder.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "in"))


def test_private_folder__is_private_and_goes_with_its_owner(parent: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == parent
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(parent.iterdir()) == []


def test_next_start__sweeps_what_a_killed_peer_left(parent: Path) -> None:
    leave_socket(parent / "iota-p2p-killed")
    with private_folder() as folder:
        assert list(parent.iterdir()) == [folder]


@pytest.mark.usefixtures("parent")
def test_next_start__leaves_the_folder_of_a_running_peer() -> None:
    with private_folder() as running:
        leave_socket(running)
        with private_folder():
            assert (running / "in").is_socket()


def test_next_start__leaves_what_is_not_ours(parent: Path) -> None:
    """A folder without our socket may be one that is just being made; a link may lead anywhere."""
    leave_socket(parent / "other")
    (parent / "iota-p2p-new").mkdir()
    (parent / "iota-p2p-link").symlink_to(parent / "other")
    with private_folder():
        pass
    assert {path.name for path in parent.iterdir()} == {"other", "iota-p2p-new", "iota-p2p-link"}
    assert (parent / "other" / "in").is_socket()
