"""Numbers and rows in words, shared by both views of a testnet."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from iota_p2p_testnet.board import Board
from iota_p2p_testnet.payments import audit_in_words, gwei
from iota_p2p_testnet.peer_row import PeerRow

_STEP = 1000
_SHOWN_MEMBERS = 8
_SHOWN_RECOVERIES = 4
_SHOWN_PAYOUTS = 16  # more do not fit a line


def size(num_bytes: float) -> str:
    """Return a number of bytes in three digits and a unit: 1234567 as `1.23 MB`."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < _STEP:
            return f"{value:.3g} {unit}"
        value /= _STEP
    return f"{value:.3g} TB"


def loss(nats: float | None) -> str:
    """Return a loss in nats, or a dash."""
    return "-" if nats is None else f"{nats:.3f}"


def ratio(factor: float | None) -> str:
    """Return how many times smaller something is."""
    return "-" if factor is None else f"{factor:.0f}x"


def recoveries(board: Board) -> str:
    """Return how the last stages that nobody served came back."""
    last = board.outages.all[-_SHOWN_RECOVERIES:]
    return ", ".join(
        f"stage {outage.stage} " + ("is gone" if outage.seconds is None else f"{outage.seconds:.1f} s ({outage.kind})")
        for outage in last
    )


def merges(board: Board) -> str:
    """Return how the last stage merged, with the agreement of its members, and whether all are equal."""
    last = board.merges.last
    if last is None:
        return "no stage has replicas yet"
    row = last.to_summary()
    matrix = " ".join(next(iter(last.merged.values())).matrix.replace(" ", "·").splitlines()[:_SHOWN_MEMBERS])
    sent = f"{size(int(row['bytes_up']))} of {size(int(row['bytes_formula']))} by formula"
    unequal = f", {board.merges.num_unequal} UNEQUAL" if board.merges.num_unequal else ""
    return f"stage {last.stage}: {last.members} members in {row['seconds']} s, {sent}, agreement {matrix}{unequal}"


def waiting(board: Board) -> str:
    """Return what the peers that run are waiting for, the most common reason first."""
    reasons = Counter(reason for row in board.rows.values() if (reason := waiting_for(row)))
    return ", ".join(f"{count} for {reason}" for reason, count in reasons.most_common()) or "nothing"


def waiting_for(row: PeerRow) -> str:
    """Return what a peer that runs is waiting for, if anything."""
    if row.state == "starting":
        return "its start"
    if row.state != "running":
        return ""
    if row.status is None:
        return "its run"
    return row.status.waiting_for or ""


def payouts(board: Board) -> str:
    """Return how the last certified epoch paid its peers, in shares of the pot."""
    last = board.scoreboard.last
    if last is None or not last.pot:
        return "no epoch certified yet"
    shares = sorted((board.name_of(peer_id).removeprefix("peer "), share) for peer_id, share in last.payouts.items())
    each = "  ".join(f"{name}: {100 * share / last.pot:.0f} %" for name, share in shares[:_SHOWN_PAYOUTS])
    return f"epoch {last.epoch}, {len(last.validators)} votes   {each}"


def payments_in_lines(board: Board, home: Path | None) -> Sequence[str]:
    """Return what was settled and paid, a line for each peer, and how to audit it if the testnet's home is kept."""
    payments, standing = board.payments, board.payments.standing
    if payments.off:
        return []
    counts = f"{standing.epochs_settled} epochs, {standing.claims_paid} claims paid, {gwei(standing.total_paid)} in all"
    pending = f", {len(standing.pending)} epochs pending" if standing.pending else ""
    lines = [f"settled  {counts}{pending}; audit {audit_in_words(standing)}"]
    peer_ids = [row.peer_id for row in board.rows.values() if row.peer_id in standing.paid][:_SHOWN_PAYOUTS]
    for peer_id in peer_ids:
        balance = f", its account has {gwei(standing.balances[peer_id])}" if peer_id in standing.balances else ""
        lines.append(f"paid     {board.name_of(peer_id)}: {gwei(standing.paid[peer_id])}{balance}")
    if home is not None and standing.contract:
        rpc = "http://127.0.0.1:8545"
        lines.append(f"audit    iota-p2p chain dev --port 8545 --state {standing.state}    (in another terminal)")
        lines.append(f"         iota-p2p audit chain {home} --rpc {rpc} --contract {standing.contract}")
    return lines
