"""A microbatch's counter never comes twice, whatever happens to the process."""

from pathlib import Path

from iota_p2p.training.counters import BLOCK, Counters


def test_counters__go_on_in_another_process(tmp_path: Path) -> None:
    """As after kill -9: nothing was closed in good order."""
    taken = []
    for count in (3, BLOCK, 1, BLOCK + 1, 2):
        counters = Counters(tmp_path / "run" / "counters")
        taken += [counters.take(5) for _ in range(count)]
    assert len(set(taken)) == len(taken)
    assert taken[:3] == [0, 1, 2]
    assert max(taken) < len(taken) + 5 * BLOCK


def test_counters__begin_anew_with_an_epoch(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "counters")
    assert [counters.take(0), counters.take(0), counters.take(1), counters.peek(1), counters.take(1)] == [0, 1, 0, 1, 1]
    assert Counters(tmp_path / "counters").take(2) == 0


def test_counters__begin_anew_when_the_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    path.write_bytes(b"\xff")
    assert Counters(path).take(0) == 0


def test_counters__go_on_when_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    counters = Counters(tmp_path / "file" / "counters")
    assert [counters.take(0), counters.take(0)] == [0, 1]
