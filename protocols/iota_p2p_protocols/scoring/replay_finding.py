"""Replay findings: what one validator's replay found, so that the others look at the very same.

A finding proves nothing and counts for nothing by itself. Whoever scores the epoch does the segment again on its own
and believes what comes out; a finding only says where to look.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import REPLAY_FINDING, Domain
from iota_p2p_protocols.message import Count, PeerIdField, SignedMessage
from iota_p2p_protocols.microbatch import Stage
from iota_p2p_protocols.scoring.segments import MAX_SEGMENTS


class ReplayFinding(SignedMessage):
    """Look at this.

    Attributes:
        epoch: which epoch's work.
        peer: whose.
        stage: on which stage.
        segment: which segment does not come out; None where the log is enough, or nothing was shown.
    """

    domain: ClassVar[Domain] = REPLAY_FINDING
    max_lifetime_s: ClassVar[int] = 86_400  # looked at within the epoch that follows, which may take hours

    epoch: Count
    peer: PeerIdField
    stage: Stage
    segment: Annotated[int, Field(ge=0, lt=MAX_SEGMENTS)] | None
