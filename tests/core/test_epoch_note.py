from pathlib import Path

import pytest

from iota_p2p.run.epoch_note import EpochNote


def test_note__is_read_by_the_next_process(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "run"
    assert EpochNote(folder).read() == 0
    for epoch in (3, 17):
        EpochNote(folder).write(epoch)
        assert EpochNote(folder).read() == epoch


@pytest.mark.parametrize("damaged", [b"", b"x", b"-4", b"\xff\xff"])
def test_note__is_none_if_it_is_damaged(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "epoch").write_bytes(damaged)
    assert EpochNote(tmp_path).read() == 0
