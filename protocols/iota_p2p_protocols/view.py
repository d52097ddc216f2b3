"""`View`: what this peer believes now about who is there. No global truth exists.

Theory of operation. For each peer the view holds its latest advert and the absences that watchers signed about
that very advert. Both only ever grow: a higher sequence replaces an advert and clears its absences, and of the
absences the `MAX_ABSENCES` with the lowest tag are kept.

A peer is *live* here unless its last advert says that it leaves, or we found it absent ourselves, or
`ABSENCE_QUORUM` others did. A live peer that hears of its absence publishes its next advert, which ends the matter.
Two views with the same live peers and sequences have the same `fingerprint`, an XOR over them.
Known limit: two colluding identities can hide a third peer from those who have not met it, until it refutes them.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import inf

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.errors import IgnoreError

MAX_PEERS = 10_000  # ten times the largest swarm we simulate; at 3 KB an entry the view takes 30 MB
MAX_ABSENCES = 8  # per advert: four times the quorum, so that liars cannot crowd out the honest without numbers
ABSENCE_QUORUM = 2  # one watcher may have a broken link of its own
NUM_WATCHED = 3  # ring successors a peer watches; the chance that all three watchers of a peer fail with it is small


@dataclass(slots=True)
class Entry:
    """What is known of one peer.

    Attributes:
        advert: its latest advert.
        absences: by watcher, what they signed about this advert.
    """

    advert: Verified[Advert]
    absences: dict[PeerId, Verified[Absence]] = field(default_factory=dict)


class View:
    """The adverts and absences known to one peer; see the module's theory of operation."""

    def __init__(self, me: PeerId) -> None:
        self.me = me
        self._entries: dict[PeerId, Entry] = {}
        self.num_changes = 0  # of the set of live peers, and of what was said of our own absence
        self._first_expiry_s = inf  # no advert expires before
        self._fingerprint = 0
        self._live: dict[PeerId, None] = {}  # in the order they became live
        self._ring: list[tuple[bytes, PeerId]] = []  # the live ones by ring position

    def receive_advert(self, advert: Verified[Advert]) -> None:
        """Take in an advert.

        Raises:
            IgnoreError: if it is no news, or the view is full.
        """
        peer_id = advert.signer
        entry = self._entries.get(peer_id)
        # [IGNORE] it is newer than the one we have
        if entry is not None and advert.payload.sequence <= entry.advert.payload.sequence:
            raise IgnoreError(
                "advert-sequence",
                f"expected a sequence over {entry.advert.payload.sequence}, got {advert.payload.sequence}",
            )
        # [IGNORE] there is room for one more peer
        if entry is None and len(self._entries) >= MAX_PEERS:
            raise IgnoreError("view-full", f"expected at most {MAX_PEERS} peers, got one more")
        self._replace(peer_id, Entry(advert))

    def receive_absence(self, absence: Verified[Absence]) -> None:
        """Take in an absence.

        Raises:
            IgnoreError: if it speaks of another advert than the one we have, or is no news.
        """
        subject, watcher = PeerId(absence.payload.peer_id), absence.signer
        entry = self._entries.get(subject)
        # [IGNORE] it is about the advert we have
        if entry is None or absence.payload.advert_sequence != entry.advert.payload.sequence:
            raise IgnoreError("absence-advert", "expected an absence about the latest advert, got another")
        # [IGNORE] it is the first by this watcher, and among the lowest by tag
        absences = {**entry.absences, watcher: absence}
        if len(absences) > MAX_ABSENCES:
            del absences[max(absences, key=partial(_tag, subject))]
        if watcher in entry.absences or watcher not in absences:
            raise IgnoreError("absence-seen", f"expected a new watcher of {subject}, got {watcher}")
        self._replace(subject, Entry(entry.advert, absences))

    def forget_expired(self, now_s: float) -> Sequence[PeerId]:
        """Drop the peers whose advert has expired; return them."""
        if now_s < self._first_expiry_s:
            return []
        expired = [peer_id for peer_id, entry in self._entries.items() if entry.advert.payload.expires_s <= now_s]
        for peer_id in expired:
            self._replace(peer_id, None)
        self._first_expiry_s = min((entry.advert.payload.expires_s for entry in self._entries.values()), default=inf)
        return expired

    def advert_of(self, peer_id: PeerId) -> Advert | None:
        """Return a peer's latest advert, live or not."""
        entry = self._entries.get(peer_id)
        return None if entry is None else entry.advert.payload

    def live(self) -> Sequence[PeerId]:
        """Return the peers believed to be there, ourselves included, in the order they came to be."""
        return tuple(self._live)

    def is_live(self, peer_id: PeerId) -> bool:
        """Return whether a peer is believed to be there."""
        return peer_id in self._live

    @property
    def is_alone(self) -> bool:
        """Whether nobody but ourselves is believed to be there."""
        return len(self._live) == (self.me in self._live)

    def gone(self) -> Sequence[PeerId]:
        """Return the peers with an advert that has not expired, but believed not to be there."""
        return [peer_id for peer_id in self._entries if peer_id not in self._live]

    def watched(self) -> Sequence[PeerId]:
        """Return the peers we watch: our next NUM_WATCHED successors among the live on the ring."""
        start = bisect_right(self._ring, (ring_position(self.me), self.me))
        around = (*self._ring[start : start + NUM_WATCHED + 1], *self._ring[: NUM_WATCHED + 1])
        others = dict.fromkeys(peer_id for _, peer_id in around if peer_id != self.me)
        return tuple(others)[:NUM_WATCHED]

    def known(self) -> Sequence[PeerId]:
        """Return every peer with an advert that has not expired, live or not."""
        return tuple(self._entries)

    def doubts_about(self, peer_id: PeerId) -> Sequence[Verified[Absence]]:
        """Return what was said of a peer's absence since its latest advert; any at all makes that peer refute.

        In the order of the watchers' ids, which is the same for everybody, whatever came first.
        """
        entry = self._entries.get(peer_id)
        return () if entry is None else tuple(entry.absences[watcher] for watcher in sorted(entry.absences))

    def is_doubted(self, peer_id: PeerId) -> bool:
        """Return whether anybody said so."""
        entry = self._entries.get(peer_id)
        return entry is not None and bool(entry.absences)

    def advert_envelope(self, peer_id: PeerId) -> bytes | None:
        """Return the signed envelope of a peer's latest advert, for passing on."""
        entry = self._entries.get(peer_id)
        return None if entry is None else entry.advert.envelope_bytes

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that are equal for views with the same live peers and advert sequences."""
        return self._fingerprint.to_bytes(32, "big")

    def sequences(self) -> dict[PeerId, int]:
        """Return the advert sequence of every live peer."""
        return {peer_id: self._entries[peer_id].advert.payload.sequence for peer_id in self._live}

    def _would_live(self, entry: Entry) -> bool:
        return not (entry.advert.payload.leaving or self.me in entry.absences or len(entry.absences) >= ABSENCE_QUORUM)

    def _replace(self, peer_id: PeerId, entry: Entry | None) -> None:
        """Set or drop an entry, and keep what is derived from it in step."""
        old = self._entries.pop(peer_id, None)
        if old is not None and peer_id in self._live:
            self._fingerprint ^= _print(peer_id, old.advert.payload.sequence)
        live = entry is not None and self._would_live(entry)
        if entry is not None:
            self._entries[peer_id] = entry
            self._first_expiry_s = min(self._first_expiry_s, entry.advert.payload.expires_s)
            self.num_changes += peer_id == self.me and bool(entry.absences)
            if live:
                self._fingerprint ^= _print(peer_id, entry.advert.payload.sequence)
        if live != (peer_id in self._live):
            self.num_changes += 1
            self._place(peer_id, live=live)

    def _place(self, peer_id: PeerId, *, live: bool) -> None:
        """Put a peer on the ring, or take it off."""
        place = (ring_position(peer_id), peer_id)
        if live:
            self._live[peer_id] = None
            insort(self._ring, place)
        else:
            del self._live[peer_id]
            del self._ring[bisect_left(self._ring, place)]


@lru_cache(2 * MAX_PEERS)
def ring_position(peer_id: PeerId) -> bytes:
    """Return a peer's place on the ring."""
    return tagged_digest("iota-p2p/ring/1", peer_id_to_bytes(peer_id))


def _tag(subject: PeerId, watcher: PeerId) -> bytes:
    return tagged_digest("iota-p2p/watcher/1", peer_id_to_bytes(subject), peer_id_to_bytes(watcher))


@lru_cache(2 * MAX_PEERS)
def _print(peer_id: PeerId, sequence: int) -> int:
    hashed = tagged_digest("iota-p2p/view-entry/1", peer_id_to_bytes(peer_id), sequence.to_bytes(8, "big"))
    return int.from_bytes(hashed, "big")
