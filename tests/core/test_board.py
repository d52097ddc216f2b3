"""The board: what it makes of what peers say, over kills and restarts."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from iota_p2p_testnet.board import Board
from iota_p2p_testnet.events import Address, Note, Recovered, Starting, Status, parse_event
from iota_p2p_testnet.live_view import picture, sparkline
from iota_p2p_testnet.outages import Outage
from iota_p2p_testnet.peer_row import Totals
from iota_p2p_testnet.plain_view import PlainView
from iota_p2p_testnet.wording import recoveries

RUN = "ab" * 32
# Recorded from a peer; `reason` is not ours to read.
STATUS_LINE = (
    b'{"event": "status", "time_s": 1795225030.6, "peer_id": "12D3KooWHj45", "run_id": "' + RUN.encode() + b'", '
    b'"epoch": 1, "stages": [{"stage": 0, "serving": true, "steps": 10}, {"stage": 1, "serving": false, "steps": 0}], '
    b'"tokens": 25600, "loss_nats": 3.926, "val_loss_nats": null, "microbatches": {"sent": 26, "completed": 25, '
    b'"retried": 1, "lost": 0}, "bytes": {"activations": 315000, "gradients": 310000, "control": 33600}, '
    b'"boundary": {"name": "subspace", "forward_ratio": 128.0, "backward_ratio": 128.0}, "waiting_for": null, '
    b'"reason": "join", "live": 4, "lane_busy_s": 7.25}'
)


def status(**fields: Any) -> Status:
    return Status.model_validate({"run_id": RUN, "epoch": 0, **fields})


def running_board(num_peers: int = 2) -> Board:
    board = Board.of(num_peers, num_stages=2, run_id=RUN)
    for number in board.rows:
        board.starts(number, 0.0)
        board.apply(number, Starting(peer_id=f"peer-{number}"), 0.5)
        board.apply(number, Address(address=f"/ip4/127.0.0.1/tcp/{number}"), 1.0)
    return board


def texts(board: Board) -> list[str]:
    return [happening.text for happening in board.happenings]


def test_parse_event__reads_a_recorded_status() -> None:
    event = parse_event(STATUS_LINE)
    assert isinstance(event, Status)
    assert Totals.of(event) == Totals(25600, 26, 25, 1, 0, 315000, 310000, 33600)
    assert [(held.stage, held.serving) for held in event.stages] == [(0, True), (1, False)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"warning: something",
        b"[]",
        b'{"event": []}',
        b'{"event": "joined", "peer_id": "x"}',
        b'{"event": "status"}',
        b'{"event": "status", "run_id": "r", "epoch": -1}',
        b'{"event": "status", "run_id": "r", "epoch": 0, "loss_nats": NaN}',
        b"\xff\x1b[2J",
        b"[" * 100_000,
    ],
)
def test_parse_event__makes_a_printable_note_of_what_it_does_not_know(line: bytes) -> None:
    event = parse_event(line)
    assert isinstance(event, Note)
    assert event.text.isprintable()


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["event", "status", "run_id", "epoch", "stages"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_parse_event__never_raises(line: bytes) -> None:
    parse_event(line)


def test_totals__add_up_over_the_lives_of_a_peer() -> None:
    board = running_board()
    board.apply(1, status(tokens=100, microbatches={"sent": 3, "lost": 1}), 2.0)
    board.apply(2, status(tokens=7), 2.0)
    board.kills(1, 3.0, back_s=5.0)
    assert board.totals.tokens == 107
    board.starts(1, 8.0)
    assert board.totals.tokens == 107
    board.apply(1, status(tokens=10, microbatches={"sent": 1}), 9.0)
    board.kills(1, 10.0, back_s=5.0)
    board.starts(1, 15.0)
    board.apply(1, status(tokens=1), 16.0)
    assert board.totals == Totals(tokens=118, sent=4, lost=1)
    assert board.rows[1].lives == 3


def test_alive__leaves_out_the_killed_and_the_ended() -> None:
    board = running_board(3)
    board.kills(1, 2.0, back_s=None)
    board.ends(2, 2.0, "exit code 1")
    assert board.alive == [3]
    assert board.unexpected_ends == 1


def test_holders__are_those_that_live() -> None:
    board = running_board()
    for number in board.rows:
        board.apply(number, status(stages=[{"stage": 1, "serving": number == 1, "steps": 4}]), 2.0)
    assert [(row.number, held.serving) for row, held in board.holders(1)] == [(1, True), (2, False)]
    board.kills(1, 3.0, back_s=None)
    assert [row.number for row, _ in board.holders(1)] == [2]
    assert board.holders(0) == []


def test_happenings__tell_of_stages_epochs_kills_and_returns() -> None:
    board = running_board(1)
    board.apply(1, status(stages=[{"stage": 0, "serving": False, "steps": 0}]), 2.0)
    board.apply(1, status(stages=[{"stage": 0, "serving": True, "steps": 0}], epoch=1), 3.0)
    board.apply(1, status(epoch=1), 4.0)
    board.kills(1, 5.0, back_s=2.0)
    board.starts(1, 7.0)
    assert texts(board)[1:] == [
        "peer 1 fetches stage 0",
        "peer 1 serves stage 0",
        "epoch 1 begins",
        "peer 1 gives up stage 0",
        "nobody serves stage 0 any more",
        "peer 1 killed, back in 2 s",
        "peer 1 is started again",
    ]


@pytest.mark.parametrize("first", [0, 13])
def test_closed_epochs__are_counted_from_the_first_one_and_for_more_than_half(first: int) -> None:
    board = running_board(4)
    assert board.num_closed_for_most() == 0
    for epochs in ((0, 0, 0, 0), (3, 3, 2, 2)):
        for number, epoch in enumerate(epochs, start=1):
            board.apply(number, status(epoch=first + epoch), 2.0)
    assert board.num_closed_for_most() == 2
    board.apply(3, status(epoch=first + 3), 3.0)
    assert board.num_closed_for_most() == board.num_closed == 3
    assert board.epoch == first + 3


def test_train_loss__is_weighted_by_the_tokens_each_source_gained() -> None:
    board = running_board()
    board.apply(1, status(tokens=300, loss_nats=2.0), 2.0)
    board.apply(2, status(tokens=100, loss_nats=6.0), 2.0)
    board.tick(2.0)
    assert board.history.train_loss.last == pytest.approx(3.0)
    board.apply(1, status(tokens=300, loss_nats=1.0), 3.0)  # gained nothing: its loss is old
    board.apply(2, status(tokens=200, loss_nats=5.0), 3.0)
    board.tick(3.0)
    assert board.history.train_loss.last == pytest.approx(5.0)
    board.tick(4.0)
    assert board.history.samples[-1].train_loss is None
    assert board.history.train_loss.first == 2.0


def test_val_loss__keeps_the_first_and_last_that_were_said() -> None:
    board = running_board()
    for now_s, loss in enumerate([None, 5.5, 5.5, None, 3.0]):
        board.apply(1, status(val_loss_nats=loss), float(now_s))
    assert (board.history.val_loss.first, board.history.val_loss.last) == (5.5, 3.0)


def train_at(board: Board, rate: int, since_s: int, until_s: int) -> None:
    """Let peer 1 gain `rate` tokens every second."""
    tokens = Totals.of(board.rows[1].status).tokens
    for now_s in range(since_s, until_s):
        tokens += rate
        board.apply(1, status(tokens=tokens), float(now_s))
        board.tick(float(now_s))


def test_tokens_per_s__leaves_out_the_start_and_the_idle_end() -> None:
    board = running_board()
    train_at(board, 0, 0, 30)
    train_at(board, 100, 30, 41)
    train_at(board, 0, 41, 60)
    assert (board.history.seconds, board.history.tokens_per_s) == (10, 100)
    assert board.history.rate() == 0


def test_rate__survives_the_thinning_of_old_samples() -> None:
    board = running_board()
    train_at(board, 100, 0, 5000)
    assert len(board.history.samples) <= 2000
    assert board.history.rate() == 100
    assert board.history.samples[0].time_s == 0


def test_recovery__is_timed_to_the_first_window_at_the_old_throughput() -> None:
    board = running_board()
    train_at(board, 100, 0, 20)
    board.kills(2, 19.5, back_s=None)
    train_at(board, 20, 20, 26)
    train_at(board, 100, 26, 40)
    (recovery,) = board.recoveries
    assert recovery.rate == 100
    assert recovery.recovered_s == pytest.approx(25 - 19.5, abs=1)  # until 25 s it was slow
    assert recovery.serving_s is None


def test_recovery__is_not_claimed_while_throughput_is_low() -> None:
    board = running_board()
    train_at(board, 100, 0, 20)
    board.kills(2, 19.5, back_s=3.0)
    train_at(board, 80, 20, 60)
    board.starts(2, 60.0)
    board.apply(2, status(stages=[{"stage": 1, "serving": True, "steps": 0}]), 62.0)
    (recovery,) = board.recoveries
    assert recovery.recovered_s is None
    assert recovery.serving_s == 42.5


def test_plain_view__writes_each_happening_once_and_how_things_stand_every_five_seconds() -> None:
    board, lines = running_board(), list[str]()
    view = PlainView(lines.append)
    view.show(board, 1.0)
    view.show(board, 2.0)
    assert [line.split("s  ", 1)[1] for line in lines] == ["peer 1 is up: peer-1", "peer 2 is up: peer-2"]
    board.kills(2, 3.0, back_s=None)
    view.show(board, 5.5)
    view.show(board, 6.0)
    assert "peer 2 killed, for good" in lines[2]
    assert "0 tokens" in lines[3]
    assert "waiting: 1 for its run" in lines[3]
    assert len(lines) == 4


def test_picture__shows_a_stage_that_nobody_serves() -> None:
    board = running_board()
    event = parse_event(STATUS_LINE)
    board.apply(1, event, 2.0)
    board.tick(2.0)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(picture(board, 3.0))
    shown = console.export_text()
    assert "nobody" in shown
    assert "25,600" in shown
    assert "128x" in shown


@given(st.lists(st.floats(-1e6, 1e6)))
def test_sparkline__has_a_bounded_width(values: list[float]) -> None:
    assert len(sparkline(values)) == min(len(values), 48)


def test_sparkline__rises_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0]) == "▁▁"


def test_outage__lasts_from_the_death_of_the_last_holder_until_somebody_serves_the_stage() -> None:
    board = running_board(3)
    for number in (1, 2):
        board.apply(number, status(stages=[{"stage": 1, "serving": True, "steps": 40 + number}]), 2.0)
    board.kills(1, 3.0, back_s=None)
    assert board.outages.all == []
    board.kills(2, 4.0, back_s=None)
    board.apply(3, Recovered(stage=1, kind="custodians", num_steps=39), 6.0)
    board.apply(3, status(stages=[{"stage": 1, "serving": False, "steps": 0}]), 6.1)
    assert recoveries(board) == "stage 1 is gone"
    board.apply(3, status(stages=[{"stage": 1, "serving": True, "steps": 39}]), 6.5)
    assert board.outages.all == [Outage(1, 4.0, 42, 2.5, "custodians", 39)]
    assert recoveries(board) == "stage 1 2.5 s (custodians)"
    assert "stage 1 is served again after 2.5 s" in texts(board)
