"""Rosters and certified means of the rows of a grid, as its tests and vectors use them."""

from typing import Any

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.grid import Seat, take_seat
from iota_p2p_protocols.butterfly.roster import RosterCertificate, certified, countersign, join_signatures, propose
from iota_p2p_protocols.butterfly.row_mean import RowMean, row_mean_of
from iota_p2p_protocols.message import open_signed, seal_message
from tests.butterfly.rosters import SEED, STAGE, contributed
from tests.core.members import PEERS

BY_ID: dict[str, Identity] = {peer.peer_id: peer for peer in PEERS}


def seat_of(number: int = 0, most: int = 3, count: int = 9) -> Seat:
    """Return the seat that the first member of a row has among the first `count` peers."""
    ids = [peer.peer_id for peer in PEERS[:count]]
    rows = take_seat(SEED, STAGE, ids[0], ids, most).rows
    return take_seat(SEED, STAGE, rows[number][0], ids, most)


def row_members(row: int) -> list[Identity]:
    """Return who is in a row of nine peers."""
    return [BY_ID[peer_id] for peer_id in seat_of().rows[row]]


def row_certificate(row: int, peers: list[Identity] | None = None, **changes: Any) -> RosterCertificate:
    """Return a roster of a row, signed by all its members."""
    members = row_members(row) if peers is None else peers
    own = [contributed(p, **{"root": digest(p.public_key), "row": row, "num_rows": 3} | changes) for p in members]
    proposal = propose(own, 0, members[0])
    return certified(join_signatures(proposal, [countersign(proposal, peer) for peer in members[1:]]))


def row_mean(row: int, root: bytes = b"mean", peers: list[Identity] | None = None, **changes: Any) -> RowMean:
    """Return what the members of a row say of it."""
    return row_mean_of(row_certificate(row, peers, **changes), (), digest(root))


def signed_row(mean: RowMean, *by: Identity) -> Verified[RowMean]:
    """Return a row's mean with signatures; all of its members' unless some are given."""
    return open_signed(seal_message(mean, *(by or [BY_ID[peer_id] for peer_id in mean.peers])), RowMean)
