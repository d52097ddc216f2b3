"""`SecondVisits`: which of our microbatches go a second time, along another drawn pathway.

Of every `pair_every` counters one is drawn by a secret of ours that nobody else can compute: so a worker cannot know
of a first visit that it is one of two, and has to treat all microbatches alike. Its second visit starts when at least
`pair_every` more have been started: if that is more than are under way at once, the first is home by then, and nobody
can be warned while it works on it.
"""

from dataclasses import dataclass, field

from iota_p2p_crypto import vrf
from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.microbatch import MicrobatchId

_EPOCH_TAG = "iota-p2p/second-visits/1"
_DRAW_TAG = "iota-p2p/second-visit/1"


@dataclass(slots=True)
class SecondVisits:
    """Draws second visits of one run's source.

    Attributes:
        identity: whose; its key draws, so that a restarted process draws the same.
        run_id: our run.
        pair_every: of the run; 0 draws none.
    """

    identity: Identity
    run_id: bytes
    pair_every: int
    _epoch: int = -1
    _secret: bytes = field(default=b"", repr=False)

    def due_after(self, started: MicrobatchId) -> MicrobatchId | None:
        """Return the second visit that is due when a first one has been started, if any."""
        if not self.pair_every or (started.counter + 1) % self.pair_every or started.counter < self.pair_every:
            return None
        first = started.counter + 1 - 2 * self.pair_every  # of the stretch before the one that is through now
        drawn = tagged_digest(_DRAW_TAG, self._secret_of(started.epoch), first.to_bytes(8, "big"))
        counter = first + int.from_bytes(drawn[:8], "big") % self.pair_every
        return started.model_copy(update={"counter": counter}).second_visit()

    def _secret_of(self, epoch: int) -> bytes:
        if epoch != self._epoch:  # four milliseconds
            proof = vrf.prove(self.identity, tagged_digest(_EPOCH_TAG, self.run_id, epoch.to_bytes(8, "big")))
            self._epoch, self._secret = epoch, vrf.output_of(proof)
        return self._secret
