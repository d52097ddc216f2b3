"""What we did on each held stage in the last epochs: where it began, the log, where it ended, until it was replayed.

Checkpoints are kept in memory, since a replay comes within an epoch or never. Where a stage begins an epoch as it ended
the one before, both share their bytes.
"""

from dataclasses import dataclass, field
from math import floor

from iota_p2p.training.held_stage import HeldStage
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.message import seal_message
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import WorkLog

# While an epoch is replayed, the next one is under way.
KEPT_EPOCHS = 2
# Weights and two moments in float32: a stage of 80 million weights has checkpoints of 1 GB, and four of them are kept.
# Beyond that the oldest go, and whoever wants to replay those is told that they are gone.
MAX_KEPT_BYTES = 4 << 30
LIFETIME_S = 86_400


@dataclass(frozen=True, slots=True)
class KeptWork:
    """An epoch's work on one stage.

    Attributes:
        epoch, stage: which.
        log: closed.
        start, end: checkpoints before its first and after its last entry.
    """

    epoch: int
    stage: int
    log: WorkLog
    start: bytes
    end: bytes

    @property
    def num_bytes(self) -> int:
        """Return what it takes at most."""
        return len(self.start) + len(self.end)


@dataclass(slots=True)
class WorkKeeper:
    """Keeps work by epoch and stage, and commits to it.

    Attributes:
        identity: who commits.
        run_id: our run.
        limit_bytes: of all checkpoints together.
    """

    identity: Identity
    run_id: bytes
    limit_bytes: int = MAX_KEPT_BYTES
    _starts: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    _kept: dict[tuple[int, int], KeptWork] = field(default_factory=dict)
    _committed: set[tuple[int, int]] = field(default_factory=set)

    def begun(self, held: HeldStage) -> None:
        """Take the checkpoint that a stage's epoch begins with; on the lane."""
        checkpoint = held.compute.checkpoint()
        before = next((one.end for one in self._kept.values() if one.end == checkpoint), checkpoint)
        self._starts[held.index] = (held.epoch, before)

    def closed(self, held: HeldStage) -> None:
        """Take the log that is complete and the checkpoint it leads to; on the lane. No work is nothing to keep."""
        epoch, start = self._starts.pop(held.index, (-1, b""))
        if epoch == held.epoch and len(held.log):
            self._kept[epoch, held.index] = KeptWork(epoch, held.index, held.log, start, held.compute.checkpoint())
            self._forget(epoch)

    def commit(self, epoch: int, now_s: float) -> list[bytes]:
        """Fix what was closed of an epoch and is not committed to yet; return a signed commitment for each stage.

        A stage whose merge took long comes with a later call.
        """
        ready = [one for key, one in sorted(self._kept.items()) if one.epoch == epoch and key not in self._committed]
        self._committed.update((one.epoch, one.stage) for one in ready)
        return [self._commit(one, now_s) for one in ready]

    def kept(self, epoch: int, stage: int) -> KeptWork | None:
        """Return the work of a stage and epoch, or None if there is none any more."""
        return self._kept.get((epoch, stage))

    def _commit(self, one: KeptWork, now_s: float) -> bytes:
        message = WorkCommitment(
            run_id=self.run_id,
            sequence=floor(now_s * 1000),
            issued_s=floor(now_s),
            expires_s=floor(now_s) + LIFETIME_S,
            epoch=one.epoch,
            stage=one.stage,
            log_root=one.log.root,
            num_entries=len(one.log),
            start_digest=digest(one.start),
            end_digest=digest(one.end),
        )
        return seal_message(message, self.identity)

    def _forget(self, newest: int) -> None:
        self._kept = {key: one for key, one in self._kept.items() if one.epoch > newest - KEPT_EPOCHS}
        while len(self._kept) > 1 and sum(one.num_bytes for one in self._kept.values()) > self.limit_bytes:
            del self._kept[min(self._kept)]
        self._committed = {key for key in self._committed if key[0] > newest - KEPT_EPOCHS}
