"""`Standing`: in what order replicas are called, by how they answered us before.

A replica that broke a rule is not called for a while. One that did not answer comes after all others for a while, and
then gets a single call to show itself: one microbatch waits for it, not all that are drawn to it. Each time that comes
to nothing the next while is twice as long. It may be behind it who is slow, so it is never left out altogether: a whole
stage that is slow is still called.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p_crypto.identity import PeerId

# A replica that broke a rule is not called again for this long, whatever the draw says.
SHUN_S = 60.0
# One that did not answer comes after all others for this long at first, and for so long at most: one that was only
# slow is then missed for a few epochs, and one that hangs costs a microbatch in a thousand its patience.
PASS_OVER_S, LONGEST_PASS_OVER_S = 10.0, 80.0


@dataclass(slots=True)
class _Lapse:
    until_s: float
    pause_s: float


@dataclass(slots=True)
class Standing:
    """What one caller holds of the replicas it calls."""

    _shunned_until_s: dict[PeerId, float] = field(default_factory=dict)
    _lapses: dict[PeerId, _Lapse] = field(default_factory=dict)

    def order(self, drawn: Iterable[PeerId]) -> Sequence[PeerId]:
        """Return whom to call, in the drawn order but for those with a bad standing."""
        now_s = trio.current_time()
        self._forget(now_s)
        wanted = [peer_id for peer_id in drawn if peer_id not in self._shunned_until_s]
        return sorted(wanted, key=lambda peer_id: self._is_passed_over(peer_id, now_s))  # which keeps the draw's order

    def calling(self, peer_id: PeerId) -> None:
        """Note that a call begins; if it is the one by which the replica shows itself, others go round it meanwhile."""
        lapse, now_s = self._lapses.get(peer_id), trio.current_time()
        if lapse is not None and lapse.until_s <= now_s:
            lapse.pause_s = min(2 * lapse.pause_s, LONGEST_PASS_OVER_S)
            lapse.until_s = now_s + lapse.pause_s

    def answered(self, peer_id: PeerId) -> None:
        """Note that it answered, whatever it said."""
        self._lapses.pop(peer_id, None)

    def failed(self, peer_id: PeerId) -> None:
        """Note that a call came to nothing."""
        lapse = self._lapses.setdefault(peer_id, _Lapse(0.0, PASS_OVER_S))
        lapse.until_s = max(lapse.until_s, trio.current_time() + lapse.pause_s)

    def broke_rule(self, peer_id: PeerId) -> None:
        """Note that it broke a rule."""
        self._shunned_until_s[peer_id] = trio.current_time() + SHUN_S

    def _forget(self, now_s: float) -> None:
        """Keep nothing of peers long gone: identities cost nothing."""
        for peer_id in [peer_id for peer_id, until_s in self._shunned_until_s.items() if until_s <= now_s]:
            del self._shunned_until_s[peer_id]
        for peer_id in [p for p, lapse in self._lapses.items() if lapse.until_s + LONGEST_PASS_OVER_S <= now_s]:
            del self._lapses[peer_id]

    def _is_passed_over(self, peer_id: PeerId, now_s: float) -> bool:
        lapse = self._lapses.get(peer_id)
        return lapse is not None and lapse.until_s > now_s
