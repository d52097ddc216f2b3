"""The scoreboard: what validators say becomes scores, flags, elections and payouts of a summary."""

from iota_p2p_testnet.board import Board
from iota_p2p_testnet.events import Replay, Result, Scores, parse_event
from iota_p2p_testnet.wording import payouts


def board_with_scores() -> Board:
    board = Board.of(3, num_stages=1, run_id="ab" * 32)
    for number, row in board.rows.items():
        row.peer_id = f"peer-{number}"
    for number in (1, 2):
        board.apply(
            number, Scores(epoch=4, scores={"peer-3": 70}, work={"peer-3": 200}, flagged={"peer-3": "clasp"}), 1.0
        )
    result = Result(epoch=4, validators=("peer-1", "peer-2"), payouts={"peer-3": 25, "peer-1": 75}, pot=100, silent=())
    board.apply(1, result, 2.0)
    board.apply(2, result, 2.5)
    return board


def test_scoreboard__counts_each_result_once_and_each_validator() -> None:
    summary = board_with_scores().scoreboard.to_summary()
    assert summary["scores"] == [
        {"epoch": 4, "validator": "peer-1", "peers": {"peer-3": 70}, "work": {"peer-3": 200}},
        {"epoch": 4, "validator": "peer-2", "peers": {"peer-3": 70}, "work": {"peer-3": 200}},
    ]
    assert summary["flagged"] == [{"peer": "peer-3", "epoch": 4, "component": "clasp", "validators": 2}]
    assert summary["elections"] == [{"epoch": 4, "validators": ["peer-1", "peer-2"]}]
    assert [result["payouts"] for result in summary["results"]] == [{"peer-3": 25, "peer-1": 75}]


def test_scoreboard__keeps_every_replay_and_says_each_failure_once() -> None:
    board = board_with_scores()
    line = b'{"event":"replay","epoch":4,"peer":"peer-3","stage":0,"verdict":"failed","reason":"output","findings":{}}'
    said = parse_event(line)
    assert isinstance(said, Replay)
    for number in (1, 2):
        board.apply(number, said, 3.0)
    board.apply(1, said.model_copy(update={"stage": 1, "verdict": "passed", "reason": "none"}), 3.0)
    replays = board.scoreboard.to_summary()["replays"]
    assert [(one["stage"], one["validator"], one["verdict"]) for one in replays] == [
        (0, "peer-1", "failed"),
        (0, "peer-2", "failed"),
        (1, "peer-1", "passed"),
    ]
    assert [one.text for one in board.happenings if "replayed" in one.text] == [
        "peer 1 replayed stage 0 of peer 3 in epoch 4: output"
    ]


def test_scoreboard__adds_up_what_everybody_earned() -> None:
    board = board_with_scores()
    board.apply(1, Result(epoch=5, validators=("peer-1",), payouts={"peer-3": 5}, pot=5, silent=()), 3.0)
    assert board.scoreboard.earned == {"peer-3": 30, "peer-1": 75}


def test_scoreboard__names_validators_without_a_record_but_not_late_ones() -> None:
    board = board_with_scores()
    silent = Result(epoch=5, validators=("peer-1",), payouts={}, pot=0, silent=("peer-2", "peer-3"))
    board.apply(1, silent, 3.0)
    board.apply(2, Scores(epoch=5, scores={}, work={}, flagged={}), 4.0)
    assert board.scoreboard.to_summary()["silent"] == [{"epoch": 5, "validator": "peer-3"}]


def test_views__say_who_was_scored_down_and_paid_what() -> None:
    board = board_with_scores()
    said = [happening.text for happening in board.happenings]
    assert said == [
        "peer 1 scored peer 3 down in epoch 4: clasp",
        "peer 2 scored peer 3 down in epoch 4: clasp",
        "epoch 4: 2 validators certify payouts to 2 peers",
    ]
    assert payouts(board) == "epoch 4, 2 votes   1: 75 %  3: 25 %"
    assert payouts(Board.of(1, 1, "")) == "no epoch certified yet"


def test_events__of_scores_and_results_are_understood() -> None:
    scores = parse_event(b'{"event": "scores", "epoch": 1, "scores": {"a": 1}, "work": {"a": 2}, "flagged": {}}')
    result = parse_event(
        b'{"event": "result", "epoch": 1, "validators": ["a"], "payouts": {"a": 1}, "pot": 1, "silent": ["b"]}'
    )
    assert isinstance(scores, Scores)
    assert isinstance(result, Result)
