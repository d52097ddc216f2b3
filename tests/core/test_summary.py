"""The summary: what scripts may rely on."""

import json
from pathlib import Path

import pytest

from iota_p2p_crypto.errors import UserError
from iota_p2p_testnet.board import Board
from iota_p2p_testnet.events import Status
from iota_p2p_testnet.summary import summarize, write_summary


def trained_board() -> Board:
    board = Board.of(2, num_stages=4, run_id="ab" * 32)
    for number in board.rows:
        board.starts(number, 0.0)
    for now_s in range(1, 12):
        fields = {
            "run_id": "ab" * 32,
            "epoch": now_s // 5,
            "tokens": 1000 * now_s,
            "loss_nats": 6.0 - now_s / 10,
            "val_loss_nats": 5.0 - now_s // 5,
            "microbatches": {"sent": 2 * now_s, "completed": now_s, "retried": 1, "lost": 0},
            "bytes": {"activations": 8 * now_s, "gradients": 7 * now_s, "control": now_s},
            "boundary": {"name": "subspace", "forward_ratio": 128.0, "backward_ratio": 127.5},
        }
        board.apply(1, Status.model_validate(fields), float(now_s))
        board.tick(float(now_s))
    return board


def test_summarize__has_what_scripts_rely_on() -> None:
    board = trained_board()
    board.kills(1, 12.0, back_s=None)
    assert summarize(board) == {
        "run_id": "ab" * 32,
        "peers": 2,
        "stages": 4,
        "num_epochs": 2,
        "epochs": [],
        "adversaries": [],
        "tokens": 11000,
        "seconds": 10.0,
        "tokens_per_s": 1000.0,
        "start_s": 1.0,
        "train_loss": {"first": 5.9, "last": pytest.approx(4.9)},
        "val_loss": {"first": 5.0, "last": 3.0},
        "boundary": {"name": "subspace", "forward_ratio": 128.0, "backward_ratio": 127.5},
        "bytes": {"activations": 88, "gradients": 77, "control": 11, "custody": 0},
        "microbatches": {"sent": 22, "completed": 11, "retried": 1, "lost": 0},
        "kills": [
            {"peer": 1, "at_s": 12.0, "tokens_per_s_before": 1000.0, "serving_again_s": None, "recovered_s": None}
        ],
        "recoveries": [],
        "scores": [],
        "flagged": [],
        "replays": [],
        "elections": [],
        "silent": [],
        "results": [],
        "settlement": None,
        "unexpected_ends": 0,
        "restarts": 0,
    }


def test_summarize__states_zeros_and_nulls_of_a_testnet_that_never_trained() -> None:
    summary = summarize(Board.of(2, num_stages=4, run_id="ab" * 32))
    assert (summary["tokens"], summary["tokens_per_s"], summary["seconds"]) == (0, 0.0, 0.0)
    assert summary["train_loss"] == {"first": None, "last": None}
    assert summary["boundary"] is None
    json.dumps(summary, allow_nan=False)


def test_write_summary__replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    write_summary(trained_board(), path)
    assert json.loads(path.read_text())["tokens"] == 11000
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_write_summary__says_what_is_wrong_when_the_path_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write the summary"):
        write_summary(trained_board(), tmp_path)
    assert list(tmp_path.iterdir()) == []
