"""What a testnet tells of its money: the settler's last word, its summary and its lines."""

from pathlib import Path

import pytest

from iota_p2p_testnet import settling
from iota_p2p_testnet.board import Board
from iota_p2p_testnet.payments import Standing
from iota_p2p_testnet.settling import why_not
from iota_p2p_testnet.summary import summarize
from iota_p2p_testnet.wording import payments_in_lines

ETHER = 10**18


def paid_board() -> Board:
    board = Board.of(2, num_stages=1, run_id="ab" * 32)
    for number, row in board.rows.items():
        row.peer_id = f"peer-{number}"
    board.payments.off = ""
    standing = Standing(
        contract="0xc0",
        state="/home/chain.log",
        epochs_settled=2,
        claims_paid=3,
        total_paid=10**9 * 1000,
        pending=(4,),
        paid={"peer-1": 10**9 * 700, "peer-2": 10**9 * 300},
        balances={"peer-1": ETHER},
        failures=(),
        note="the chain is audited",
    )
    assert board.payments.hear(standing.model_dump_json().encode()) == "the chain is audited"
    return board


def test_summary__has_what_was_settled_and_paid() -> None:
    assert summarize(paid_board())["settlement"] == {
        "contract": "0xc0",
        "epochs_settled": 2,
        "claims_paid": 3,
        "total_paid": 10**9 * 1000,
        "pending": [4],
        "paid": {"peer-1": 10**9 * 700, "peer-2": 10**9 * 300},
        "balances": {"peer-1": ETHER},
        "failures": [],
        "audit": "clean",
    }


def test_lines__say_who_was_paid_what_and_how_to_audit_it() -> None:
    assert payments_in_lines(paid_board(), None) == [
        "settled  2 epochs, 3 claims paid, 1,000 gwei in all, 1 epochs pending; audit clean",
        "paid     peer 1: 700 gwei, its account has 1,000,000,000 gwei",
        "paid     peer 2: 300 gwei",
    ]
    assert payments_in_lines(paid_board(), Path("/home"))[-2:] == [
        "audit    iota-p2p chain dev --port 8545 --state /home/chain.log    (in another terminal)",
        "         iota-p2p audit chain /home --rpc http://127.0.0.1:8545 --contract 0xc0",
    ]


def test_payments__keep_the_last_word_when_the_settler_says_nonsense() -> None:
    board = paid_board()
    for line in (b"\xff", b"[]", b'{"epochs_settled": -1}', b"Traceback"):
        assert "the settler said" in board.payments.hear(line)
    assert board.payments.standing.claims_paid == 3


def test_settling_nothing__has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not(wanted=False, has_validators=True) == "--no-settle"
    assert "no validators" in why_not(wanted=True, has_validators=False)
    monkeypatch.setattr(settling, "find_spec", lambda _: None)
    assert "pip install 'iota-p2p[settlement]'" in why_not(wanted=True, has_validators=True)
    board = Board.of(2, num_stages=1, run_id="ab" * 32)
    assert summarize(board)["settlement"] is None
    assert payments_in_lines(board, None) == []
