"""Convictions: what a proof of any kind comes to for a score. Pure, and the one place that knows all kinds of proofs.

A fault in a merge costs its maker the epoch that the merge ended. Two records or votes of epoch e that exclude each
other are signed while e + 2 trains, when records of e are already made: they cost their signer epoch e + 2.
"""

from dataclasses import dataclass
from typing import NamedTuple

from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.faults import is_fault, verify_fault
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.scoring.equivocation import open_equivocation_proof

# Epochs from the one whose records or votes a validator signs twice to the one in which it does so.
EQUIVOCATION_LAG = 2


class Charge(NamedTuple):
    """One fault: however many proofs there are of it, it counts once.

    Attributes:
        guilty: whose.
        kind: `reducer`, `contribution`, `report`, `roster`, or what was signed twice.
        stage: of the merge; 0 for what belongs to no stage.
    """

    guilty: PeerId
    kind: str
    stage: int

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.kind} fault of {self.guilty} in stage {self.stage}"


@dataclass(frozen=True, slots=True)
class Conviction:
    """What a proof that holds comes to.

    Attributes:
        charge: what was done, by whom.
        run_id: in which run.
        epoch: whose score it takes away.
        reason: what was expected and what came, for people.
    """

    charge: Charge
    run_id: bytes
    epoch: int
    reason: str


def open_proof(data: bytes) -> Conviction:
    """Check a proof of any kind by itself.

    Raises:
        InvalidProofError: if it is about no epoch, as two tree heads are: they convict, but take no score away.
        RemoteProtocolError: if it does not hold.
    """
    if is_fault(data):
        verdict = verify_fault(data)
        charge = Charge(verdict.liar, verdict.kind, verdict.stage)
        return Conviction(charge, verdict.run_id, verdict.epoch, verdict.reason)
    found = open_equivocation_proof(data)
    # [conviction-epoch] a score is of an epoch
    if found.epoch is None:
        raise InvalidProofError("conviction-epoch", f"expected a proof about an epoch, got one of two {found.kind}s")
    reason = f"expected one {found.kind} about {found.about}, got two that exclude each other"
    return Conviction(Charge(found.guilty, found.kind, 0), found.run_id, found.epoch + EQUIVOCATION_LAG, reason)
