"""What every topic's rules share: seen before, and too often. The verdicts are errors (`errors`).

A topic's own rule is a function `validate(data, author)` that returns the message's value, or raises `IgnoreError`
(of no use: silence) or any `RemoteProtocolError`, `RejectError` among them (breaks a rule: charged to its author).
"""

from collections import OrderedDict
from hashlib import sha256

from iota_p2p_crypto.identity import PeerId

# Authors remembered at a time, the least recently heard forgotten first; a swarm has some thousand.
MAX_AUTHORS = 4096
# Messages remembered per author: several minutes of the busiest topic. 4096 x 256 x 100 bytes are 100 MB at the
# very worst, and need a thousand identities that all publish at full rate.
SEEN_PER_AUTHOR = 256


class Seen:
    """Which messages have come before, by digest and author.

    Each author has its own share, so that nobody can make us forget the messages of others.
    """

    def __init__(self) -> None:
        self._digests: OrderedDict[PeerId, OrderedDict[bytes, None]] = OrderedDict()

    def add(self, author: PeerId, data: bytes) -> bool:
        """Remember a message; return True if it is new."""
        digests = self._digests.setdefault(author, OrderedDict())
        self._digests.move_to_end(author)
        if len(self._digests) > MAX_AUTHORS:
            self._digests.popitem(last=False)
        digest = sha256(data).digest()
        if digest in digests:
            digests.move_to_end(digest)
            return False
        digests[digest] = None
        if len(digests) > SEEN_PER_AUTHOR:
            digests.popitem(last=False)
        return True


class RateLimit:
    """A token bucket per author: `burst` at once, `per_minute` in the long run."""

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._tokens: OrderedDict[PeerId, tuple[float, float]] = OrderedDict()  # author: (tokens, at time)

    def allow(self, author: PeerId, now_s: float) -> bool:
        """Take a token; return False if there is none."""
        tokens, at_s = self._tokens.pop(author, (float(self._burst), now_s))
        tokens = min(self._burst, tokens + (now_s - at_s) * self._per_s)
        allowed = tokens >= 1
        self._tokens[author] = (tokens - allowed, now_s)
        if len(self._tokens) > MAX_AUTHORS:
            self._tokens.popitem(last=False)
        return allowed
