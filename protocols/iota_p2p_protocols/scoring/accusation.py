"""Accusations: whoever finds a proof of a fault says whom it names and where to get it.

A proof may have some megabytes, so gossip carries only its digest. An accusation is worth nothing by itself: whoever
hears one asks its signer for the proof (`/iota-p2p/proof/1`) and believes that. Spec: protocols/spec/scores.md.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import ACCUSATION, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.message import Count, DigestField, PeerIdField, SignedMessage
from iota_p2p_protocols.microbatch import Stage
from iota_p2p_protocols.scoring.conviction import Charge, Conviction

_MAX_KIND = 32  # characters; the longest has 18


class Accusation(SignedMessage):
    """Somebody has a proof against a peer.

    Attributes:
        epoch: whose score it takes away.
        accused: whom the proof names.
        kind, stage: of which fault, as in `Conviction`.
        proof: digest of the proof's bytes.
    """

    domain: ClassVar[Domain] = ACCUSATION
    max_lifetime_s: ClassVar[int] = 86_400  # scores of its epoch are signed within the next one

    epoch: Count
    accused: PeerIdField
    kind: Annotated[str, Field(max_length=_MAX_KIND)]
    stage: Stage
    proof: DigestField

    @property
    def charge(self) -> Charge:
        """What it says was done, by whom."""
        return Charge(PeerId(self.accused), self.kind, self.stage)


def check_accusation(accusation: Verified[Accusation], proved: Conviction) -> None:
    """Check what a proof comes to against what its accuser said; raises InvalidProofError."""
    said = accusation.payload
    # [accusation-false] the proof is of this run and epoch, and shows just that
    if (said.run_id, said.epoch, said.charge) != (proved.run_id, proved.epoch, proved.charge):
        raise InvalidProofError(
            "accusation-false",
            f"expected a proof of {proved.charge} in epoch {proved.epoch}, got {said.charge} in epoch {said.epoch}",
        )
