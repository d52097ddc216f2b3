"""A testnet as lines of text: every change that matters as it happens, and how things stand every few seconds."""

from collections.abc import Callable

from iota_p2p_testnet.board import Board
from iota_p2p_testnet.wording import loss, size, waiting

# Often enough to see that it lives, rare enough to read an hour of it.
STANDING_EVERY_S = 5.0


class PlainView:
    """Writes a testnet's life to a log or a pipe."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """`write` prints a line."""
        self._write = write
        self._told = 0
        self._last_standing_s = 0.0

    def show(self, board: Board, now_s: float) -> None:
        """Write what is new."""
        new = min(board.num_happenings - self._told, len(board.happenings))
        for happening in list(board.happenings)[len(board.happenings) - new :]:
            self._write(f"{happening.time_s:7.1f} s  {happening.text}")
        self._told = board.num_happenings
        if now_s - self._last_standing_s >= STANDING_EVERY_S:
            self._last_standing_s = now_s
            self._write(f"{now_s:7.1f} s  {standing(board)}")

    def close(self) -> None:
        """Nothing is left open."""


def standing(board: Board) -> str:
    """Return how things stand, in one line."""
    totals, history = board.totals, board.history
    sizes = (f"{name} {size(getattr(totals, name))}" for name in ("activations", "gradients", "custody", "control"))
    parts = (
        f"epoch {board.epoch}",
        f"{totals.tokens:,} tokens",
        f"{history.rate():,.0f}/s",
        f"train {loss(history.train_loss.last)}",
        f"held out {loss(history.val_loss.last)}",
        f"{len(board.alive)}/{len(board.rows)} peers",
        *sizes,
        f"{totals.retried} retried",
        f"{totals.lost} lost",
        f"{board.merges.num_merged} merges, {board.merges.num_unequal} unequal",
        f"{len(board.scoreboard.results)} epochs certified",
        f"waiting: {waiting(board)}",
    )
    return " | ".join(parts)
