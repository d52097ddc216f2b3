"""A stage's state on disk: whole, or not loaded."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iota_p2p.run.spec import RunId
from iota_p2p.training.stage_state import StageState
from iota_p2p.training.state_files import DamagedStateError, StateFiles, StateNotSavedError

RUN = RunId(bytes(range(32)))
STATE = StageState(stage=3, epoch=7, num_steps=70, checkpoint=b"weights and moments")
LATER = StageState(stage=3, epoch=8, num_steps=80, checkpoint=b"other weights and moments")


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    return StateFiles(tmp_path / "state", RUN)


@pytest.fixture
def saved(files: StateFiles) -> Path:
    files.save(STATE)
    return files.folder / "stage-003.state"


@contextmanager
def disk_of(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond some bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_state__comes_back(files: StateFiles) -> None:
    assert files.load(3) is None
    assert files.stages() == []
    files.save(STATE)
    files.save(StageState(0, 7, 70, b"first"))
    files.save(LATER)
    assert files.load(3) == LATER
    assert files.stages() == [0, 3]
    assert sorted(path.name for path in files.folder.iterdir()) == ["stage-000.state", "stage-003.state"]
    files.forget(3)
    files.forget(3)
    assert files.load(3) is None


def test_state__of_every_run_has_a_place_of_its_own(files: StateFiles, tmp_path: Path) -> None:
    other = StateFiles(tmp_path / "state", RunId(bytes(32)))
    files.save(STATE)
    other.save(LATER)
    assert (files.load(3), other.load(3)) == (STATE, LATER)


def test_state__is_set_aside_when_cut_short_anywhere(files: StateFiles, saved: Path) -> None:
    data = saved.read_bytes()
    for length in range(len(data)):
        saved.write_bytes(data[:length])
        with pytest.raises(DamagedStateError, match="stage 3 is damaged"):
            files.load(3)
        assert files.load(3) is None
        assert saved.with_suffix(".damaged").read_bytes() == data[:length]
    assert files.stages() == []


def test_state__is_set_aside_when_any_bit_is_flipped(files: StateFiles, saved: Path) -> None:
    data = saved.read_bytes()
    for index in range(len(data)):
        saved.write_bytes(data[:index] + bytes([data[index] ^ (1 << index % 8)]) + data[index + 1 :])
        with pytest.raises(DamagedStateError):
            files.load(3)


def test_state__is_set_aside_when_something_follows(files: StateFiles, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(DamagedStateError):
        files.load(3)


def test_state__is_set_aside_when_it_is_another_stages(files: StateFiles, saved: Path) -> None:
    saved.rename(files.folder / "stage-004.state")
    with pytest.raises(DamagedStateError, match="expected stage 4"):
        files.load(4)


def test_state__is_set_aside_when_it_is_another_runs(saved: Path, tmp_path: Path) -> None:
    other = StateFiles(tmp_path / "state", RunId(bytes(32)))
    other.folder.mkdir()
    saved.rename(other.folder / saved.name)
    with pytest.raises(DamagedStateError):
        other.load(3)


@pytest.mark.parametrize("num_bytes", [0, 10, 100, 1000])
def test_save__keeps_the_last_one_when_the_disk_is_full(files: StateFiles, saved: Path, num_bytes: int) -> None:
    with disk_of(num_bytes), pytest.raises(StateNotSavedError, match="the last save is kept"):
        files.save(StageState(3, 8, 80, bytes(2000)))
    assert files.load(3) == STATE
    assert [path.name for path in files.folder.iterdir()] == [saved.name], "what was written of it is gone"
    files.save(LATER)
    assert files.load(3) == LATER


def test_save__says_so_when_there_is_no_folder_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"in the way")
    with pytest.raises(StateNotSavedError, match="stage 3 could not be saved"):
        StateFiles(tmp_path / "state", RUN).save(STATE)


def test_partial_file__of_a_killed_save_does_no_harm(files: StateFiles, saved: Path) -> None:
    saved.with_suffix(".partial").write_bytes(b"half")
    assert files.stages() == [3]
    assert files.load(3) == STATE
    files.save(LATER)
    assert [path.name for path in files.folder.iterdir()] == [saved.name]
