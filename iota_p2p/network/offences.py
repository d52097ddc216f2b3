"""Who broke which rule how often, and who is refused for it."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId

# Peers with a record, the least recent forgotten first.
MAX_PEERS = 1024
# An honest peer breaks a rule when versions or clocks differ, seldom and not in series.
MAX_OFFENCES = 16
FORGIVE_ONE_S = 30.0
REFUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Offence:
    """A rule that a peer broke.

    Attributes:
        peer_id: who broke it.
        rule: its stable, kebab-case name.
        detail: what was expected and what came.
    """

    peer_id: PeerId
    rule: str
    detail: str


@dataclass(slots=True)
class _Standing:
    counts: Counter[str] = field(default_factory=Counter)
    score: float = 0.0
    at_s: float = 0.0
    refused_until_s: float = 0.0


class OffenceLedger:
    """Counts offences per peer; after too many within a short time the peer is refused for a while.

    Attributes:
        on_offence: told each offence at once; must neither raise nor take long.
    """

    def __init__(self, on_offence: Callable[[Offence], None] | None = None) -> None:
        self.on_offence = on_offence
        self._standings: OrderedDict[PeerId, _Standing] = OrderedDict()

    def charge(self, peer_id: PeerId, rule: str, detail: str) -> None:
        """Count an offence."""
        now_s = trio.current_time()
        standing = self._standings.setdefault(peer_id, _Standing(at_s=now_s))
        self._standings.move_to_end(peer_id)
        if len(self._standings) > MAX_PEERS:
            self._standings.popitem(last=False)
        standing.counts[rule] += 1
        standing.score = max(0.0, standing.score - (now_s - standing.at_s) / FORGIVE_ONE_S) + 1
        standing.at_s = now_s
        if standing.score >= MAX_OFFENCES:
            standing.score = 0.0
            standing.refused_until_s = now_s + REFUSE_S
        if self.on_offence is not None:
            self.on_offence(Offence(peer_id, rule, detail))

    @contextmanager
    def charging(self, peer_id: PeerId) -> Iterator[None]:
        """Charge a peer with the rule that a check of its bytes finds broken; the error goes on."""
        try:
            yield
        except RemoteProtocolError as error:
            self.charge(peer_id, error.rule, str(error))
            raise

    def refuses(self, peer_id: PeerId) -> bool:
        """True if a peer has lately broken too many rules to be listened to."""
        standing = self._standings.get(peer_id)
        return standing is not None and trio.current_time() < standing.refused_until_s

    def counts(self, peer_id: PeerId) -> dict[str, int]:
        """Return how often a peer broke each rule."""
        standing = self._standings.get(peer_id)
        return {} if standing is None else dict(standing.counts)
