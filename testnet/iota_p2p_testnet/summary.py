"""The testnet's result as one JSON object, for scripts and benchmarks."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from iota_p2p_crypto.errors import UserError
from iota_p2p_testnet.board import Board
from iota_p2p_testnet.history import Recovery, Span
from iota_p2p_testnet.outages import Outage


def summarize(board: Board) -> dict[str, Any]:
    """Return what the whole testnet did, over all lives of its peers.

    `tokens_per_s` is over `seconds`, from the first trained tokens to the last: the start of the processes is
    `start_s`, not part of it. Losses are in nats per token. `num_epochs` is how many have closed for whoever is
    furthest; `epochs` has a row for each stage at the end of each of them. `settlement` is what the local chain did, in
    wei, and null if nothing was to be settled.
    """
    totals, history, boundary = board.totals, board.history, board.boundary
    return {
        "run_id": board.run_id,
        "peers": len(board.rows),
        "stages": board.num_stages,
        "num_epochs": board.num_closed,
        "epochs": [row.to_summary() for row in board.merges.rows.values()],
        "tokens": totals.tokens,
        "seconds": round(history.seconds, 3),
        "tokens_per_s": round(history.tokens_per_s, 1),
        "start_s": None if history.began_s is None else round(history.began_s, 3),
        "train_loss": _span(history.train_loss),
        "val_loss": _span(history.val_loss),
        "boundary": None if boundary is None else boundary.model_dump(),
        "bytes": {name: getattr(totals, name) for name in ("activations", "gradients", "control", "custody")},
        "microbatches": {name: getattr(totals, name) for name in ("sent", "completed", "retried", "lost")},
        "kills": [_kill(recovery) for recovery in board.recoveries],
        "recoveries": [_recovery(outage) for outage in board.outages.all],
        "adversaries": _adversaries(board),
        **board.scoreboard.to_summary(),
        "settlement": board.payments.to_summary(),
        "unexpected_ends": board.unexpected_ends,
        "restarts": sum(max(0, row.lives - 1) for row in board.rows.values()),
    }


def write_summary(board: Board, path: Path) -> None:
    """Write the summary, whole or not at all; raises UserError if it cannot be written."""
    scratch = path.with_name(f".{path.name}.partial")
    try:
        scratch.write_text(json.dumps(summarize(board), indent=1) + "\n", "utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UserError(f"cannot write the summary to {path}: {error.strerror}") from error


def _adversaries(board: Board) -> list[dict[str, Any]]:
    """Return every peer that cheats or is proved to, and in how many epochs a proof names it."""
    named = Counter(board.name_of(peer_id) for _, _, peer_id in board.merges.named)
    return [
        {"peer": row.number, "kind": row.adversary, "named": named[f"peer {row.number}"]}
        for row in board.rows.values()
        if row.adversary or named[f"peer {row.number}"]
    ]


def _span(span: Span) -> dict[str, float | None]:
    return {"first": span.first, "last": span.last}


def _kill(recovery: Recovery) -> dict[str, Any]:
    return {
        "peer": recovery.peer,
        "at_s": round(recovery.killed_s, 3),
        "tokens_per_s_before": round(recovery.rate, 1),
        "serving_again_s": _rounded(recovery.serving_s),
        "recovered_s": _rounded(recovery.recovered_s),
    }


def _recovery(outage: Outage) -> dict[str, Any]:
    return {
        "kind": outage.kind,
        "stage": outage.stage,
        "at_s": round(outage.began_s, 3),
        "seconds": _rounded(outage.seconds),
        "steps_before": outage.steps,
        "steps_after": outage.steps_after,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
