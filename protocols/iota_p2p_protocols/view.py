"""`View`: what this peer believes now about who is there. No global truth exists.

Theory of operation. For each peer the view holds its latest advert and the absences that watchers signed about
that very advert. Both only ever grow: a higher sequence replaces an advert and clears its absences, and of the
absences the `MAX_ABSENCES` with the lowest tag are kept. Two views that have heard the same messages, in whatever
order, are therefore equal, and `fingerprint` (an XOR over the entries) tells so in 32 bytes.

A peer is *live* here unless its last advert says that it leaves, or we found it absent ourselves, or
`ABSENCE_QUORUM` others did. A live peer that hears of its absence publishes its next advert, which ends the matter.
Known limit: two colluding members can hide a third from those who have not met it, until it refutes them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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
        print: this entry's share of the view's fingerprint.
    """

    advert: Verified[Advert]
    absences: dict[PeerId, Verified[Absence]] = field(default_factory=dict)
    print: bytes = b""


class View:
    """The adverts and absences known to one peer; see the module's theory of operation."""

    def __init__(self, me: PeerId) -> None:
        self.me = me
        self._entries: dict[PeerId, Entry] = {}
        self._fingerprint = 0
        self._live: dict[PeerId, None] | None = None  # cache, dropped at every change

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
        # [IGNORE] its watcher is a member we know
        if watcher not in self._entries:
            raise IgnoreError("absence-watcher", f"expected a known watcher, got {watcher}")
        # [IGNORE] it is the first by this watcher, and among the lowest by tag
        kept = _lowest(subject, (*entry.absences, watcher))
        if watcher in entry.absences or watcher not in kept:
            raise IgnoreError("absence-seen", f"expected a new watcher of {subject}, got {watcher}")
        absences = {**entry.absences, watcher: absence}
        self._replace(subject, Entry(entry.advert, {name: absences[name] for name in kept}))

    def forget_expired(self, now_s: float) -> Sequence[PeerId]:
        """Drop the peers whose advert has expired; return them."""
        expired = [peer_id for peer_id, entry in self._entries.items() if entry.advert.payload.expires_s <= now_s]
        for peer_id in expired:
            self._replace(peer_id, None)
        return expired

    def advert_of(self, peer_id: PeerId) -> Advert | None:
        """Return a peer's latest advert, live or not."""
        entry = self._entries.get(peer_id)
        return None if entry is None else entry.advert.payload

    def live(self) -> Sequence[PeerId]:
        """Return the peers believed to be there, ourselves included, in the order they were first heard."""
        if self._live is None:
            self._live = {peer_id: None for peer_id, entry in self._entries.items() if self._is_live(entry)}
        return tuple(self._live)

    def is_live(self, peer_id: PeerId) -> bool:
        """Return whether a peer is believed to be there."""
        entry = self._entries.get(peer_id)
        return entry is not None and self._is_live(entry)

    def known(self) -> Sequence[PeerId]:
        """Return every peer with an advert that has not expired, live or not."""
        return tuple(self._entries)

    def doubted(self, peer_id: PeerId) -> bool:
        """Return whether anybody declared a peer's latest advert absent: what makes that peer refute."""
        entry = self._entries.get(peer_id)
        return entry is not None and bool(entry.absences)

    def envelopes_of(self, peer_id: PeerId) -> Sequence[bytes]:
        """Return the signed envelopes behind an entry, advert first, for passing on."""
        entry = self._entries.get(peer_id)
        if entry is None:
            return ()
        return (entry.advert.envelope_bytes, *(absence.envelope_bytes for absence in entry.absences.values()))

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that are equal for views holding the same adverts and absences."""
        return self._fingerprint.to_bytes(32, "big")

    def prints(self) -> dict[PeerId, bytes]:
        """Return each entry's own 32-byte fingerprint."""
        return {peer_id: entry.print for peer_id, entry in self._entries.items()}

    def _is_live(self, entry: Entry) -> bool:
        return not (entry.advert.payload.leaving or self.me in entry.absences or len(entry.absences) >= ABSENCE_QUORUM)

    def _replace(self, peer_id: PeerId, entry: Entry | None) -> None:
        old = self._entries.pop(peer_id, None)
        if old is not None:
            self._fingerprint ^= int.from_bytes(old.print, "big")
        if entry is not None:
            entry.print = _print(peer_id, entry)
            self._fingerprint ^= int.from_bytes(entry.print, "big")
            self._entries[peer_id] = entry
        self._live = None


def watched_by(me: PeerId, live: Iterable[PeerId]) -> Sequence[PeerId]:
    """Return the peers that `me` watches: its next NUM_WATCHED successors among the live on the ring of peer tags."""
    ring = sorted((ring_position(peer_id), peer_id) for peer_id in live if peer_id != me)
    start = bisect_right(ring, (ring_position(me), me))
    around = ring[start:] + ring[:start]
    return tuple(peer_id for _, peer_id in around[:NUM_WATCHED])


def ring_position(peer_id: PeerId) -> bytes:
    """Return a peer's place on the ring."""
    return tagged_digest("iota-p2p/ring/1", peer_id_to_bytes(peer_id))


def _lowest(subject: PeerId, watchers: Iterable[PeerId]) -> set[PeerId]:
    def tag(watcher: PeerId) -> bytes:
        return tagged_digest("iota-p2p/watcher/1", peer_id_to_bytes(subject), peer_id_to_bytes(watcher))

    distinct = set(watchers)
    return distinct if len(distinct) <= MAX_ABSENCES else set(sorted(distinct, key=tag)[:MAX_ABSENCES])


def _print(peer_id: PeerId, entry: Entry) -> bytes:
    watchers = b"".join(sorted(peer_id_to_bytes(watcher) for watcher in entry.absences))
    sequence = entry.advert.payload.sequence.to_bytes(8, "big")
    return tagged_digest("iota-p2p/view-entry/1", peer_id_to_bytes(peer_id), sequence, watchers)
