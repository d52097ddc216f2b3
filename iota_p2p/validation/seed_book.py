"""The seeds we know, epoch by epoch: from certified results where there are any."""

from dataclasses import dataclass, field

from iota_p2p_crypto.digest import Digest
from iota_p2p_protocols.scoring.result import SEED_LAG, CertifiedResult
from iota_p2p_protocols.scoring.seed_chain import genesis_seed, next_seed

KEPT_SEEDS = 16  # epochs back, of 32 bytes; anything still in question is at most four epochs old


@dataclass(slots=True)
class SeedBook:
    """Seeds by epoch.

    Attributes:
        run_id: whose chain it is.
        from_start: whether we were there from epoch 0; who comes later knows no seed before the first result it sees.
    """

    run_id: bytes
    from_start: bool = True
    _seeds: dict[int, Digest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin the chain, whose first SEED_LAG links nobody could influence."""
        if self.from_start:
            self._seeds[0] = genesis_seed(self.run_id)
            for epoch in range(1, SEED_LAG):
                self._seeds[epoch] = next_seed(self._seeds[epoch - 1], epoch, {})

    def seed(self, epoch: int) -> Digest | None:
        """Return an epoch's seed, or None as long as it is open or we do not know it."""
        return self._seeds.get(epoch)

    def learn(self, result: CertifiedResult) -> None:
        """Take the seed that a certified result makes."""
        self._seeds.setdefault(result.payload.epoch + SEED_LAG, Digest(result.payload.seed))
        newest = max(self._seeds)
        self._seeds = {epoch: seed for epoch, seed in self._seeds.items() if epoch > newest - KEPT_SEEDS}

    def go_on_without(self, epoch: int) -> None:
        """Continue the chain to an epoch whose result did not come in time."""
        before = self._seeds.get(epoch - 1)
        if epoch not in self._seeds and before is not None:
            self._seeds[epoch] = next_seed(before, epoch, {})
