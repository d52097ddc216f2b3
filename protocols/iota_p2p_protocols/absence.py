"""Absences: a watcher's signed word that a peer does not answer (spec: protocols/spec/membership.md).

One word is not enough: a peer counts as gone when `view.ABSENCE_QUORUM` of its watchers say so about the same
advert. A peer that is alive refutes them all by publishing its next advert.
"""

from typing import ClassVar

from iota_p2p_crypto.domains import ABSENCE, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.advert import LIFETIME_S
from iota_p2p_protocols.errors import RejectError
from iota_p2p_protocols.message import Count, Opener, PeerIdField, SignedMessage, open_gossip, open_signed


class Absence(SignedMessage):
    """A watcher could not reach a peer.

    Attributes:
        peer_id: who did not answer.
        advert_sequence: the sequence number of its latest advert the watcher knew.
    """

    domain: ClassVar[Domain] = ABSENCE
    max_lifetime_s: ClassVar[int] = LIFETIME_S  # no longer than the advert it speaks of

    peer_id: PeerIdField
    advert_sequence: Count


def check_watcher(absence: Verified[Absence]) -> None:
    """Check who speaks of whom, however the absence came.

    Raises:
        RejectError: if a peer declares itself absent.
    """
    # [REJECT] nobody declares itself absent
    if absence.payload.peer_id == absence.signer:
        raise RejectError("absence-self", f"expected an absence of another peer, got one of {absence.signer} itself")


def validate_absence_gossip(
    data: bytes, author: PeerId, *, run_id: bytes, now_s: float, opener: Opener = open_signed
) -> Verified[Absence]:
    """Check an absence that came by gossip; whether its signer watches that peer is the view's question.

    Raises:
        IgnoreError: as `open_gossip`.
        RejectError: as `open_gossip` and `check_watcher`.
    """
    verified = open_gossip(data, author, Absence, run_id=run_id, now_s=now_s, opener=opener)
    check_watcher(verified)
    return verified
