"""A testnet on a terminal: who holds what, how fast and how well it trains, what travels, and what just happened."""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from iota_p2p_testnet.board import Board
from iota_p2p_testnet.payments import gwei
from iota_p2p_testnet.peer_row import PeerRow
from iota_p2p_testnet.wording import loss, merges, payouts, ratio, recoveries, size, waiting, waiting_for

_BARS = "▁▂▃▄▅▆▇█"
_CURVE_COLUMNS = 48
_SHOWN_HAPPENINGS = 6
_SHOWN_PEERS = 24  # more do not fit a terminal; the stage map has them all
_STATE_STYLES = {"running": "green", "starting": "yellow", "killed": "red", "ended": "bold red"}


class LiveView:
    """Redraws the whole picture in place."""

    def __init__(self, console: Console) -> None:
        """Begin to draw."""
        # Drawn by the caller's clock: no thread of rich's own.
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def show(self, board: Board, now_s: float) -> None:
        """Draw how things are."""
        self._live.update(picture(board, now_s), refresh=True)

    def close(self) -> None:
        """Leave the last picture and give the terminal back."""
        self._live.stop()


def picture(board: Board, now_s: float) -> RenderableType:
    """Return the whole picture."""
    title = f"run {board.run_id[:12]}  epoch {board.epoch}  {now_s:.0f} s"
    return Panel(Group(_training(board), _stage_map(board), _peers(board), _happenings(board)), title=title)


def sparkline(values: Sequence[float], columns: int = _CURVE_COLUMNS) -> str:
    """Return a curve of the values, the means of equally many of them, in at most this many characters."""
    if not values:
        return ""
    columns = min(columns, len(values))
    edges = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _training(board: Board) -> RenderableType:
    totals, history, boundary = board.totals, board.history, board.boundary
    table = Table.grid(padding=(0, 2))
    train = [sample.train_loss for sample in history.samples if sample.train_loss is not None]
    held_out = [sample.val_loss for sample in history.samples if sample.val_loss is not None]
    work = f"{totals.completed:,} of {totals.sent:,} microbatches, {totals.retried} retried, {totals.lost} lost"
    table.add_row("tokens", f"{totals.tokens:,}", f"{history.rate():,.0f}/s   {work}")
    table.add_row("train loss", loss(history.train_loss.last), sparkline(train))
    table.add_row("held-out loss", loss(history.val_loss.last), sparkline(held_out))
    if boundary is not None:
        ratios = f"{ratio(boundary.forward_ratio)} forward, {ratio(boundary.backward_ratio)} backward"
        table.add_row("boundary", boundary.name, f"{ratios}, against float32 of all channels")
    kinds = ("activations", "gradients", "custody", "control")
    sent = ", ".join(f"{kind} {size(getattr(totals, kind))}" for kind in kinds)
    table.add_row("sent", "", sent)
    table.add_row("recoveries", str(len(board.outages.all)), recoveries(board))
    table.add_row("merges", str(board.merges.num_merged), merges(board))
    table.add_row("scores", str(len(board.scoreboard.results)), payouts(board))
    standing = board.payments.standing
    paid = board.payments.off or f"{standing.claims_paid} claims paid, {gwei(standing.total_paid)}"
    table.add_row("settled", str(standing.epochs_settled), paid)
    table.add_row("waiting", "", waiting(board))
    return table


def _stage_map(board: Board) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "served by", "being fetched by", "steps"):
        table.add_column(title)
    for stage in range(board.num_stages):
        holders = board.holders(stage)
        serving = [str(row.number) for row, held in holders if held.serving]
        fetching = [str(row.number) for row, held in holders if not held.serving]
        steps = max((held.steps for _, held in holders), default=0)
        nobody = Text("nobody", "bold red")
        table.add_row(str(stage), " ".join(serving) or nobody, " ".join(fetching) or "-", f"{steps:,}")
    return table


def _peers(board: Board) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for title in ("peer", "state", "stages", "tokens", "loss", "retried/lost", "sees", "waiting for"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for row in list(board.rows.values())[:_SHOWN_PEERS]:
        table.add_row(*_peer(row))
    hidden = len(board.rows) - _SHOWN_PEERS
    return Group(table, Text(f"and {hidden} more")) if hidden > 0 else table


def _peer(row: PeerRow) -> Sequence[RenderableType]:
    totals, status = row.totals, row.status if row.is_up else None
    stages = " ".join(str(held.stage) if held.serving else f"({held.stage})" for held in row.stages)
    state = Text(row.state if row.lives < 2 else f"{row.state}, life {row.lives}", _STATE_STYLES.get(row.state, ""))  # noqa: PLR2004 - the second life is worth a word
    return (
        str(row.number),
        state,
        stages or "-",
        f"{totals.tokens:,}",
        loss(status.loss_nats if status else None),
        f"{totals.retried}/{totals.lost}",
        str(status.live) if status else "-",
        waiting_for(row),
    )


def _happenings(board: Board) -> RenderableType:
    recent = list(board.happenings)[-_SHOWN_HAPPENINGS:]
    return Text("\n".join(f"{happening.time_s:7.1f} s  {happening.text}" for happening in recent), "dim")
