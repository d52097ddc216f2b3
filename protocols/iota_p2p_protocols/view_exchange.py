"""View exchange: two peers make their views equal, on `/iota-p2p/view/1` (spec: protocols/spec/membership.md).

First the caller sends its view's fingerprint. If it differs, the answer carries a summary: one row of peer id and
advert sequence per live peer. From that the caller knows which adverts to send and which to ask for, and one more
request moves both. Gossip carries news fast; this repairs what gossip missed, brings a joiner up to date and heals
partitions.

Word of who is gone travels the same ways. A peer that was cut off believes half of the world to be gone; when it is
back, its old absences spread until they reach the peers they speak of, which refute them within seconds and have to,
because only a newer advert ends what the other half believes. So each side also tells the other what was said of
*its own* absence, even if the views are equal.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import DIGEST_BYTES
from iota_p2p_crypto.identity import PeerId, peer_id_from_bytes, peer_id_to_bytes
from iota_p2p_protocols.errors import MalformedError
from iota_p2p_protocols.ids import ABSENCES, VIEW
from iota_p2p_protocols.message import Message
from iota_p2p_protocols.view import MAX_ABSENCES, MAX_PEERS, View

PEER_ID_BYTES = 38
SEQUENCE_BYTES = 8
ROW_BYTES = PEER_ID_BYTES + SEQUENCE_BYTES
MAX_WANTED = 1024  # peers asked for at once: their envelopes fill most of an answer, see BATCH_BYTES
BATCH_BYTES = VIEW.max_payload_bytes // 2  # stop adding entries here; the largest entry still fits above it

Doubts = Annotated[tuple[Annotated[bytes, Field(max_length=ABSENCES.max_bytes)], ...], Field(max_length=MAX_ABSENCES)]
PeerIdBytes = Annotated[bytes, Field(min_length=PEER_ID_BYTES, max_length=PEER_ID_BYTES)]


class Compare(Message):
    """Ask whether two views are the same.

    Attributes:
        fingerprint: the caller's.
        doubts: envelopes of the absences of the callee that the caller knows.
    """

    fingerprint: Annotated[bytes, Field(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    doubts: Doubts = ()


class Compared(Message):
    """The answer; a summary follows as payload if the views differ.

    Attributes:
        same: whether they are equal.
        doubts: envelopes of the absences of the caller that the callee knows.
    """

    same: bool
    doubts: Doubts = ()


class Swap(Message):
    """Send entries (as payload) and ask for others, which come back as payload.

    Attributes:
        wanted: the peers whose entries the caller may lack.
    """

    wanted: Annotated[tuple[PeerIdBytes, ...], Field(max_length=MAX_WANTED)]


def pack_doubts(view: View, partner: PeerId) -> tuple[bytes, ...]:
    """Return what the partner should hear of its own absence."""
    return tuple(absence.envelope_bytes for absence in view.doubts_about(partner))


def pack_summary(view: View) -> bytes:
    """Return one row of ROW_BYTES per live peer, in no particular order."""
    rows = view.sequences().items()
    return b"".join(peer_id_to_bytes(peer_id) + sequence.to_bytes(SEQUENCE_BYTES, "big") for peer_id, sequence in rows)


def unpack_summary(data: bytes) -> dict[PeerId, int]:
    """Return each peer's advert sequence.

    Raises:
        MalformedError: if the rows do not come out even, are too many or name no peers.
    """
    if len(data) % ROW_BYTES or len(data) > MAX_PEERS * ROW_BYTES:
        raise MalformedError("view-summary", f"expected up to {MAX_PEERS} rows of {ROW_BYTES}, got {len(data)} bytes")
    rows = (data[start : start + ROW_BYTES] for start in range(0, len(data), ROW_BYTES))
    return {peer_id_from_bytes(row[:PEER_ID_BYTES]): int.from_bytes(row[PEER_ID_BYTES:], "big") for row in rows}


def plan_swap(view: View, theirs: dict[PeerId, int]) -> tuple[Swap, bytes]:
    """Return the request that makes two views equal, given the other's summary."""
    ours = view.sequences()
    # Of peers that only we believe live, too: the other may know why they are gone.
    unlisted = [peer_id for peer_id in ours if peer_id not in theirs]
    wanted = [peer_id for peer_id, sequence in theirs.items() if _sequence_of(view, peer_id) < sequence] + unlisted
    # Of peers that only the other believes live, too: their newer advert may say that they left.
    newer = [peer_id for peer_id in {**ours, **theirs} if _sequence_of(view, peer_id) > theirs.get(peer_id, -1)]
    gone = [peer_id for peer_id, sequence in theirs.items() if ours.get(peer_id, -1) < sequence]
    swap = Swap(wanted=tuple(peer_id_to_bytes(peer_id) for peer_id in wanted[:MAX_WANTED]))
    return swap, pack_entries(view, newer, gone)


def pack_entries(view: View, adverts_of: Sequence[PeerId], absences_of: Sequence[PeerId]) -> bytes:
    """Return as many of these envelopes as fit one message; the rest goes with the next exchange."""
    adverts = (view.advert_envelope(peer_id) for peer_id in adverts_of)
    absences = (absence.envelope_bytes for peer_id in absences_of for absence in view.doubts_about(peer_id))
    envelopes: list[bytes] = []
    size = 0
    for envelope in (*filter(None, adverts), *absences):
        if size > BATCH_BYTES:
            break
        envelopes.append(envelope)
        size += len(envelope)
    return canonical.encode(envelopes)


def _sequence_of(view: View, peer_id: PeerId) -> int:
    advert = view.advert_of(peer_id)
    return -1 if advert is None else advert.sequence


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
