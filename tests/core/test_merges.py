"""What a testnet makes of its peers' words on merges."""

from rich.console import Console

from iota_p2p_testnet.board import Board
from iota_p2p_testnet.events import Merged, Starting
from iota_p2p_testnet.live_view import picture
from iota_p2p_testnet.summary import summarize

ONE = Merged(
    epoch=0,
    stage=1,
    how="merged",
    digest="aa",
    seconds=0.5,
    members=("id1", "id2", "id3"),
    shards=3,
    lost_shards=0,
    faults=1,
    named=("id3",),
    passed_over=("id2",),
    bytes_up=1000,
    bytes_formula=990,
    matrix=" =x\n= =\nx= ",
)


def board_of(*said: Merged) -> Board:
    """Return the board of a testnet whose last peer cheats."""
    board = Board.of(len(said), 2, "ab" * 32)
    board.turns_bad(len(said), "bad-reducer")
    for number, merged in enumerate(said, start=1):
        board.apply(number, Starting(peer_id=f"id{number}"), 1.0)
        board.apply(number, merged, 2.0)
    return board


def test_merges__are_one_row_of_the_summary_for_each_stage_and_epoch() -> None:
    """The worst of counts, the longest of times, the mean of bytes; and who was named."""
    board = board_of(ONE, ONE.model_copy(update={"seconds": 0.7, "bytes_up": 900}), ONE)
    summary = summarize(board)
    assert summary["epochs"] == [
        {
            "epoch": 0,
            "stage": 1,
            "members": 3,
            "shards": 3,
            "lost_shards": 0,
            "faults": 1,
            "passed_over": 1,
            "bytes_up": 950,
            "bytes_formula": 990,
            "seconds": 0.7,
            "equal": True,
        }
    ]
    assert summary["adversaries"] == [{"peer": 3, "kind": "bad-reducer", "named": 1}]


def test_merges__that_end_with_different_weights_are_seen() -> None:
    """Nothing is worse, so it is said in every line of standing."""
    board = board_of(ONE, ONE.model_copy(update={"digest": "bb"}), ONE)
    assert board.merges.num_unequal == 1
    assert summarize(board)["epochs"][0]["equal"] is False


def test_merges__hear_no_cheat_where_somebody_else_speaks() -> None:
    """Whatever comes first: what a cheat ends with is its own affair."""
    cheat = ONE.model_copy(update={"digest": "bb", "lost_shards": 3})
    board = board_of(ONE, ONE, cheat)
    assert (board.merges.num_unequal, summarize(board)["epochs"][0]["lost_shards"]) == (0, 0)
    board = Board.of(2, 2, "ab" * 32)
    board.turns_bad(2, "bad-reducer")
    board.apply(2, cheat, 2.0)
    board.apply(1, ONE, 2.0)
    assert (board.merges.num_unequal, summarize(board)["epochs"][0]["lost_shards"]) == (0, 0)


def test_live_view__shows_the_last_merge_and_who_agreed() -> None:
    """One line: members, time, bytes against the formula, the agreement matrix."""
    console = Console(width=160, record=True, quiet=False, file=None)
    with console.capture() as capture:
        console.print(picture(board_of(ONE, ONE, ONE), 3.0))
    assert "stage 1: 3 members in 0.5 s, 1 kB of 990 B by formula, agreement ·=x =·= x=·" in capture.get()
