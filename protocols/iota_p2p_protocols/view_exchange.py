"""View exchange: two peers make their views equal, on `/iota-p2p/view/1` (spec: protocols/spec/membership.md).

First the caller sends its view's fingerprint. If it differs, the answer carries a summary: one row of peer id and
print per entry. From that the caller knows which entries to send and which to ask for, and one more request moves
both. Gossip carries news fast; this repairs what gossip missed, brings a joiner up to date and heals partitions.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import DIGEST_BYTES
from iota_p2p_crypto.identity import PeerId, peer_id_from_bytes, peer_id_to_bytes
from iota_p2p_protocols.errors import MalformedError
from iota_p2p_protocols.ids import VIEW
from iota_p2p_protocols.message import Message
from iota_p2p_protocols.view import MAX_PEERS, View

PEER_ID_BYTES = 38
ROW_BYTES = PEER_ID_BYTES + DIGEST_BYTES
MAX_WANTED = 1024  # peers asked for at once: their envelopes fill most of an answer, see BATCH_BYTES
BATCH_BYTES = VIEW.max_payload_bytes // 2  # stop adding entries here; the largest entry still fits above it

PeerIdBytes = Annotated[bytes, Field(min_length=PEER_ID_BYTES, max_length=PEER_ID_BYTES)]


class Compare(Message):
    """Ask whether two views are the same.

    Attributes:
        fingerprint: the caller's.
    """

    fingerprint: Annotated[bytes, Field(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class Compared(Message):
    """The answer; a summary follows as payload if the views differ.

    Attributes:
        same: whether they are equal.
    """

    same: bool


class Swap(Message):
    """Send entries (as payload) and ask for others, which come back as payload.

    Attributes:
        wanted: the peers whose entries the caller lacks.
    """

    wanted: Annotated[tuple[PeerIdBytes, ...], Field(max_length=MAX_WANTED)]


def pack_summary(view: View) -> bytes:
    """Return one row of ROW_BYTES per entry, in no particular order."""
    return b"".join(peer_id_to_bytes(peer_id) + entry_print for peer_id, entry_print in view.prints().items())


def unpack_summary(data: bytes) -> dict[PeerId, bytes]:
    """Return each entry's print.

    Raises:
        MalformedError: if the rows do not come out even, are too many or name no peers.
    """
    if len(data) % ROW_BYTES or len(data) > MAX_PEERS * ROW_BYTES:
        raise MalformedError("view-summary", f"expected up to {MAX_PEERS} rows of {ROW_BYTES}, got {len(data)} bytes")
    rows = (data[start : start + ROW_BYTES] for start in range(0, len(data), ROW_BYTES))
    return {peer_id_from_bytes(row[:PEER_ID_BYTES]): row[PEER_ID_BYTES:] for row in rows}


def plan_swap(view: View, theirs: dict[PeerId, bytes]) -> tuple[Swap, bytes]:
    """Return the request that makes two views equal, given the other's summary."""
    ours = view.prints()
    wanted = [peer_id for peer_id, entry_print in theirs.items() if ours.get(peer_id) != entry_print]
    offered = [peer_id for peer_id, entry_print in ours.items() if theirs.get(peer_id) != entry_print]
    swap = Swap(wanted=tuple(peer_id_to_bytes(peer_id) for peer_id in wanted[:MAX_WANTED]))
    return swap, pack_entries(view, offered)


def pack_entries(view: View, peer_ids: Sequence[PeerId]) -> bytes:
    """Return the envelopes of as many of these entries as fit one message; the rest goes with the next exchange."""
    envelopes: list[bytes] = []
    size = 0
    for peer_id in peer_ids:
        if size > BATCH_BYTES:
            break
        entry = view.envelopes_of(peer_id)
        envelopes.extend(entry)
        size += sum(map(len, entry))
    return canonical.encode(envelopes)


def unpack_entries(data: bytes) -> Sequence[bytes]:
    """Return the envelopes of a message; nothing in them has been verified.

    Raises:
        RemoteProtocolError: if it is not a canonical list of byte strings.
    """
    envelopes = canonical.decode(data, max_bytes=VIEW.max_payload_bytes)
    if type(envelopes) is not tuple or not set(map(type, envelopes)) <= {bytes}:
        raise MalformedError("view-entries", "expected a list of envelopes, got something else")
    return envelopes


def wanted_peers(swap: Swap) -> Sequence[PeerId]:
    """Return the peer ids a swap asks for; raises MalformedError if one is not an Ed25519 peer id."""
    return tuple(peer_id_from_bytes(raw) for raw in swap.wanted)
