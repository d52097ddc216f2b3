"""Who was a validator of an epoch and published no record of it, by the facts of an archive."""

from dataclasses import dataclass

from iota_p2p.audit.dossier import Dossier
from iota_p2p.audit.verification import electorate_of
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.silence import silent_validators


@dataclass(frozen=True, slots=True)
class Silence:
    """A validator without a record in an epoch that others certified.

    Attributes:
        epoch, peer_id: when and whose.
        num_signers: validators that signed the result without it.
        has_record: whether the archive holds a record of it all the same: it came too late, or was passed over.
    """

    epoch: int
    peer_id: PeerId
    num_signers: int
    has_record: bool

    def __str__(self) -> str:
        """Return it for people."""
        what = "its record is in no result" if self.has_record else "it published no record"
        return f"epoch {self.epoch}: {self.peer_id} was elected, and {what}; {self.num_signers} certified without it"


def silences(dossier: Dossier) -> list[Silence]:
    """Return all that can be known, by epoch; nothing of epochs without a result, or with several."""
    known = dossier.record_by_digest()
    found = []
    for epoch, results in sorted(dossier.results.items()):
        records = [known[Digest(name)] for name in results[0].payload.records if name in known]
        voters = electorate_of(dossier, records[0]) if records else None
        if voters is None or len(records) < len(results[0].payload.records):
            continue  # `verify` says what is missing
        published = {
            signer for signer, mine in dossier.records.items() if any(one.payload.epoch == epoch for one in mine)
        }
        found += [
            Silence(epoch, peer_id, len(results[0].signers), peer_id in published)
            for peer_id in silent_validators(voters, {record.signer for record in records})
        ]
    return found
