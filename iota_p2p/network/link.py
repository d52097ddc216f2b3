"""How long bytes take between simulated hosts: latency, bandwidth, loss and partitions.

`Links` answers questions about time and reachability; it owns no task and no stream. Everything random is drawn
from a hash of the seed and of *what* is sent, never from a shared generator: trio shuffles the order in which
tasks run, and a draw that depended on it would make two runs of one seed differ.
"""

from dataclasses import dataclass
from hashlib import blake2b

from iota_p2p_crypto.errors import LocalProtocolError
from iota_p2p_crypto.identity import PeerId

Direction = tuple[PeerId, PeerId]  # from, to

_DRAW_BYTES = 8
_DRAW_RANGE = 2.0 ** (8 * _DRAW_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkModel:
    """What the wires are like; the defaults are a calm wide-area network of home connections.

    Attributes:
        latency_s: one-way delay of every message.
        jitter_s: at most this much more, drawn evenly per message.
        loss: share of gossip deliveries that never arrive. Streams are reliable: there, the same share of
            segments arrives `retransmit_s` later.
        retransmit_s: how long a lost segment takes to be sent again (TCP's smallest timer is 0.2 s).
        up_bytes_per_s: what a host can send, shared by all its streams. 12.5 MB/s is 100 Mbit/s.
        down_bytes_per_s: what a host can receive, shared likewise.
        window_bytes: unread bytes of one stream before its writer must wait; yamux allows 256 KiB to 16 MiB.
        dial_timeout_s: how long connecting to a host behind a partition takes to fail (go-libp2p: 5 s for TCP).
        break_after_s: how long a partition lasts before open connections break (yamux: 30 s between
            keep-alives, 10 s to write one; typically a stalled write notices first).
        tick_s: arrivals are rounded up to a multiple of this; coarser simulates faster.
    """

    latency_s: float = 0.02
    jitter_s: float = 0.01
    loss: float = 0.0
    retransmit_s: float = 0.2
    up_bytes_per_s: float = 12.5e6
    down_bytes_per_s: float = 12.5e6
    window_bytes: int = 2**20
    dial_timeout_s: float = 5.0
    break_after_s: float = 15.0
    tick_s: float = 0.001

    def __post_init__(self) -> None:
        """Check that what is sent again arrives some day."""
        if not 0 <= self.loss < 1:
            raise LocalProtocolError(f"expected a loss in [0, 1), got {self.loss}")


def draw(seed: int, *what: object) -> float:
    """Return a number in [0, 1) that depends on the seed and on `what`, and on nothing else."""
    digest = blake2b(repr((seed, what)).encode(), digest_size=_DRAW_BYTES).digest()
    return int.from_bytes(digest, "big") / _DRAW_RANGE


class Links:
    """The wires between all pairs of simulated hosts, and how busy each host's own line is."""

    def __init__(self, seed: int, default: LinkModel) -> None:
        self._seed = seed
        self.default = default
        self._models: dict[Direction, LinkModel] = {}
        self._up_free_at_s: dict[PeerId, float] = {}
        self._down_free_at_s: dict[PeerId, float] = {}
        self.blocked: set[Direction] = set()
        self._cut_off: dict[PeerId, set[PeerId]] = {}  # by target: those who cannot reach it

    def set_model(self, source: PeerId, target: PeerId, model: LinkModel) -> None:
        """Give one direction between two hosts its own model; a host's bandwidth is that of `(host, host)`."""
        self._models[source, target] = model

    def model(self, source: PeerId, target: PeerId) -> LinkModel:
        """Return the model of one direction."""
        return self._models.get((source, target), self.default)

    def delay_s(self, source: PeerId, target: PeerId, *what: object) -> float:
        """Return how long `what` travels from source to target, without bandwidth and loss."""
        model = self.model(source, target)
        return model.latency_s + model.jitter_s * draw(self._seed, source, target, what)

    def block(self, source: PeerId, target: PeerId) -> None:
        """Let nothing pass from source to target."""
        self.blocked.add((source, target))
        self._cut_off.setdefault(target, set()).add(source)

    def heal(self) -> None:
        """Let everything pass again."""
        self.blocked.clear()
        self._cut_off.clear()

    def cut_off_from(self, target: PeerId) -> set[PeerId]:
        """Return those who cannot reach a host."""
        return self._cut_off.get(target, set())

    def reachable(self, source: PeerId, target: PeerId) -> bool:
        """True if the two can talk: a connection needs both directions."""
        return (source, target) not in self.blocked and (target, source) not in self.blocked

    def leave_at_s(self, source: PeerId, size_bytes: int, now_s: float) -> float:
        """Queue bytes on a host's uplink; return when the last of them has left."""
        free_at_s = max(now_s, self._up_free_at_s.get(source, now_s))
        left_at_s = free_at_s + size_bytes / self.model(source, source).up_bytes_per_s
        self._up_free_at_s[source] = left_at_s
        return left_at_s

    def cross_s(self, source: PeerId, target: PeerId, *what: object) -> float:
        """Return how long a stream's segment travels, retransmissions included."""
        model = self.model(source, target)
        delay_s = self.delay_s(source, target, what)
        attempt = 0
        while model.loss and draw(self._seed, source, target, what, attempt) < model.loss:
            delay_s += model.retransmit_s
            attempt += 1
        return delay_s

    def arrive_at_s(self, target: PeerId, size_bytes: int, now_s: float) -> float:
        """Queue bytes on a host's downlink; return when the last of them has come in."""
        # Cut-through: a lone transfer is slowed by the slower of the two lines, not by their sum.
        took_s = size_bytes / self.model(target, target).down_bytes_per_s
        in_at_s = max(now_s, self._down_free_at_s.get(target, now_s - took_s) + took_s)
        self._down_free_at_s[target] = in_at_s
        return in_at_s
