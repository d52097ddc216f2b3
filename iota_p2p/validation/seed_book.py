"""The seeds we know, epoch by epoch: from certified results where there are any.

Whoever comes later cannot check who was elected, because elections follow from the seed that it lacks. So it believes
what a quorum of all candidates signed. Candidates who deceive it cost it its own records, which fail in others' eyes.
"""

from dataclasses import dataclass, field

from iota_p2p.validation.bulletin import Bulletin
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.result import SEED_LAG, EpochResult
from iota_p2p_protocols.scoring.seed_chain import genesis_seed, next_seed

KEPT_SEEDS = 16  # epochs back, of 32 bytes; anything still in question is at most four epochs old


@dataclass(slots=True)
class SeedBook:
    """Seeds by epoch.

    Attributes:
        run_id: whose chain it is.
        continues: whether what we know goes on to now: whoever comes later has to hear of a result first.
    """

    run_id: bytes
    continues: bool = True
    _seeds: dict[int, Digest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin the chain, whose first SEED_LAG links nobody could influence."""
        self._seeds[0] = genesis_seed(self.run_id)
        for epoch in range(1, SEED_LAG):
            self._seeds[epoch] = next_seed(self._seeds[epoch - 1], epoch, {})

    def seed(self, epoch: int) -> Digest | None:
        """Return an epoch's seed, or None as long as it is open or we do not know it."""
        return self._seeds.get(epoch)

    def learn(self, result: EpochResult) -> None:
        """Take the seed that a certified result makes."""
        self.continues = True
        self._seeds.setdefault(result.epoch + SEED_LAG, Digest(result.seed))
        newest = max(self._seeds)
        self._seeds = {epoch: seed for epoch, seed in self._seeds.items() if epoch > newest - KEPT_SEEDS}

    def hear(self, epoch: int, bulletin: Bulletin, seats: int) -> None:
        """Take an epoch's seed from a result that a quorum of candidates signed, if we know none."""
        if bulletin.certified is not None:
            self.learn(bulletin.certified.payload)
        about = epoch - SEED_LAG
        if epoch in self._seeds or about < 0:
            return
        voters = bulletin.electorate(about, seats)
        signers: dict[bytes, set[PeerId]] = {}
        for vote in bulletin.said(about).votes.values():
            alike = signers.setdefault(vote.payload_bytes, set())
            alike.update(vote.signers)
            if voters.is_quorum(alike):
                self.learn(vote.payload)
                return

    def go_on_without(self, epoch: int) -> None:
        """Continue the chain to an epoch: results of those before did not come in time."""
        if not self.continues:
            return
        newest = max((known for known in self._seeds if known <= epoch), default=epoch)
        for each in range(newest + 1, epoch + 1):
            self._seeds[each] = next_seed(self._seeds[each - 1], each, {})
