"""Scores as Bittensor's weight vector: u16 numbers, the largest 65535, zeros dropped.

Only an export: nothing is submitted, and nothing there settles anything here. Whose uid is whose is that network's
knowledge, so peers are listed by their ids and the caller may give a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.result import EpochResult

U16_MAX = 65535


@dataclass(frozen=True, slots=True)
class Weight:
    """One entry of the vector."""

    peer_id: PeerId
    uid: int | None
    weight: int


def weight_vector(result: EpochResult, uids: Mapping[PeerId, int]) -> list[Weight]:
    """Return round(score / largest * 65535), half to even, for every peer where that is not 0; by uid, then peer id."""
    scores = {PeerId(peer_id): score for peer_id, score, _ in result.payouts}
    largest = max(scores.values(), default=0)
    if not largest:
        return []
    weights = [
        Weight(peer_id, uids.get(peer_id), round(Fraction(score * U16_MAX, largest)))
        for peer_id, score in scores.items()
    ]
    return sorted((one for one in weights if one.weight), key=lambda one: (one.uid is None, one.uid or 0, one.peer_id))
