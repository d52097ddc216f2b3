"""Which work of an epoch is replayed: drawn from the seed that came after everybody had committed to its work.

All validators draw the same, since a median does not hear what only one of them saw.
"""

from collections.abc import Collection

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.scoring.evidence import JoinedEvidence

_TAG = "iota-p2p/replay/1"
_STAGE_BYTES = 2

Pair = tuple[PeerId, int]  # a peer and one of its stages


def pairs_in(evidence: JoinedEvidence) -> frozenset[Pair]:
    """Return who worked on which stage, as the evidence shows."""
    return frozenset((peer_id, stage) for one in evidence.records for stage, peer_id in enumerate(one.pathway))


def draw_replays(seed: bytes, pairs: Collection[Pair], count: int) -> tuple[Pair, ...]:
    """Return the pairs to replay, at most `count`, in the order drawn.

    Args:
        seed: of the epoch after the one in question.
        pairs: who worked on what.
        count: how many are wanted.
    """

    def drawn(pair: Pair) -> bytes:
        return tagged_digest(_TAG, seed, peer_id_to_bytes(pair[0]), pair[1].to_bytes(_STAGE_BYTES, "big"))

    return tuple(sorted(pairs, key=drawn)[:count])
