"""The loss records that we signed as a last stage or got home as a source, until they have been audited."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import floor

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.loss_record import LossRecord
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.announcements import KEPT_EPOCHS
from iota_p2p_protocols.scoring.evidence import (
    MAX_RECORDS,
    EvidenceCommitment,
    Role,
    evidence_root,
    order_records,
)

LIFETIME_S = 86_400


@dataclass(slots=True)
class EvidenceKeeper:
    """Keeps records by epoch, and what we committed to.

    Attributes:
        identity: who commits.
        run_id: our run.
    """

    identity: Identity
    run_id: bytes
    _records: dict[tuple[int, Role], dict[bytes, Verified[LossRecord]]] = field(default_factory=dict)
    _committed: dict[Digest, tuple[int, list[bytes]]] = field(default_factory=dict)
    _closed: set[tuple[int, Role]] = field(default_factory=set)

    def take(self, record: Verified[LossRecord], role: Role) -> None:
        """Keep a record that we signed or that came home; one that comes after its epoch's commitment is left out."""
        key = (record.payload.microbatch.epoch, role)
        kept = self._records.setdefault(key, {})
        if key not in self._closed and len(kept) < MAX_RECORDS:
            kept[record.envelope_bytes] = record

    def close_for_sources(self, epoch: int) -> None:
        """Let nothing more in that comes home: a tail has signed it by now, so it is in the tail's commitment."""
        self._closed.add((epoch, "source"))

    def commit(self, epoch: int, now_s: float) -> list[bytes]:
        """Fix what we have of an epoch; return a signed commitment for each role that has any, once."""
        commitments = []
        for role in ("source", "tail"):
            held = self._records.get((epoch, role), {})
            if held:
                commitments.append(self._commit(epoch, role, held.values(), now_s))
            self._closed.add((epoch, role))
        self._forget_before(epoch - KEPT_EPOCHS)
        return commitments

    def shown(self, commitment: Digest) -> Sequence[bytes] | None:
        """Return the records behind a commitment of ours in their order, or None if it is none or too old."""
        found = self._committed.get(commitment)
        return None if found is None else found[1]

    def _commit(self, epoch: int, role: Role, held: Iterable[Verified[LossRecord]], now_s: float) -> bytes:
        envelopes = [record.envelope_bytes for record in order_records(held, self.run_id)]
        message = EvidenceCommitment(
            run_id=self.run_id,
            sequence=floor(now_s * 1000),
            issued_s=floor(now_s),
            expires_s=floor(now_s) + LIFETIME_S,
            epoch=epoch,
            role=role,
            root=evidence_root(envelopes),
            num_records=len(envelopes),
        )
        signed = open_signed(seal_message(message, self.identity), EvidenceCommitment)
        self._committed[signed.digest] = (epoch, envelopes)
        return signed.envelope_bytes

    def _forget_before(self, epoch: int) -> None:
        self._records = {key: kept for key, kept in self._records.items() if key[0] >= epoch}
        self._committed = {name: entry for name, entry in self._committed.items() if entry[0] >= epoch}
        self._closed = {key for key in self._closed if key[0] >= epoch}
