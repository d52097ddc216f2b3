"""`RunData`: the tokens of a run as training and evaluation need them."""

import numpy as np
import numpy.typing as npt

from iota_p2p.run.microbatch import microbatches_per_source, window_indices
from iota_p2p.run.shards import ShardStore, Windows
from iota_p2p.run.spec import RunSpec
from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_protocols.microbatch import MicrobatchId

# A fixed spread over the held-out text: enough that the mean's noise is below 0.01 nats.
_EVALUATION_STRIDE = 7919  # a prime, so that neighbouring draws are far apart


class RunData:
    """Windows of a run's shards, which have to be in the store.

    Shapes: B sequences of T+1 tokens; the last T of each are the labels.
    """

    def __init__(self, spec: RunSpec, store: ShardStore) -> None:
        self.spec = spec
        self._run_id = spec.run_id
        self._train = Windows(store, spec.data.train, spec.model)
        self._heldout = Windows(store, spec.data.heldout, spec.model)

    @property
    def microbatches_per_source(self) -> int:
        """How many microbatches one source can start in an epoch."""
        return microbatches_per_source(self._train.count, self.spec.epoch.microbatch_size)

    def check_counter(self, microbatch: MicrobatchId) -> None:
        """Check that a microbatch that somebody else names has data.

        Raises:
            MalformedError: if it has none, or this run visits none twice.
        """
        # [microbatch-counter] the data has such a microbatch
        limit = self.microbatches_per_source
        if microbatch.data_counter >= limit:
            raise MalformedError("microbatch-counter", f"expected a counter below {limit}, got {microbatch.counter}")
        # [microbatch-visit] a second visit is one that the run knows
        if microbatch.is_second and (self.spec.validation is None or not self.spec.validation.pair_every):
            raise MalformedError("microbatch-visit", f"expected no second visits in this run, got {microbatch.counter}")

    def training_window(self, microbatch: MicrobatchId) -> npt.NDArray[np.int64]:
        """Return a microbatch's tokens, B x (T+1)."""
        seed = epoch_seed(self._run_id, microbatch.epoch)
        return self._train.read(window_indices(seed, microbatch, self._train.count, self.spec.epoch.microbatch_size))

    def heldout_window(self, index: int) -> npt.NDArray[np.int64]:
        """Return the `index`-th batch of the held-out text, B x (T+1); the same for everybody, at any time."""
        size, count = self.spec.epoch.microbatch_size, self._heldout.count
        return self._heldout.read([(index * size + row) * _EVALUATION_STRIDE % count for row in range(size)])


def epoch_seed(run_id: bytes, epoch: int) -> Digest:
    """Return an epoch's common random value.

    Until validators are elected it follows from the run and the epoch alone, so that it can be known beforehand.
    """
    return tagged_digest("iota-p2p/epoch-seed/1", run_id, epoch.to_bytes(8, "big"))
