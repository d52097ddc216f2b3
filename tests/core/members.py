"""Adverts and absences of a few fixed peers, as the membership tests and vectors use them."""

from typing import Any

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import LIFETIME_S, Advert
from iota_p2p_protocols.message import open_signed, seal_message

RUN, OTHER_RUN = bytes(range(32)), bytes(range(1, 33))
NOW_S = 1_700_000_000
PEERS = tuple(Identity.from_seed(bytes([number]) * 32) for number in range(16))


def advert_of(peer: Identity, sequence: int = 1, **changes: Any) -> bytes:
    """Return the envelope of a peer's advert."""
    fields = {
        "run_id": RUN,
        "sequence": sequence,
        "issued_s": NOW_S,
        "expires_s": NOW_S + LIFETIME_S,
        "addresses": (f"/ip4/192.0.2.1/tcp/4001/p2p/{peer.peer_id}",),
        "oldest_version": 1,
        "newest_version": 1,
        "software": "test/1",
    }
    return seal_message(Advert.model_validate({**fields, **changes}), peer)


def absence_by(watcher: Identity, subject: Identity, advert_sequence: int = 1, **changes: Any) -> bytes:
    """Return the envelope of a watcher's word that a peer does not answer."""
    fields = {
        "run_id": RUN,
        "sequence": 1,
        "issued_s": NOW_S,
        "expires_s": NOW_S + LIFETIME_S,
        "peer_id": subject.peer_id,
        "advert_sequence": advert_sequence,
    }
    return seal_message(Absence.model_validate({**fields, **changes}), watcher)


def opened_advert(peer: Identity, sequence: int = 1, **changes: Any) -> Verified[Advert]:
    return open_signed(advert_of(peer, sequence, **changes), Advert)


def opened_absence(watcher: Identity, subject: Identity, advert_sequence: int = 1) -> Verified[Absence]:
    return open_signed(absence_by(watcher, subject, advert_sequence), Absence)
