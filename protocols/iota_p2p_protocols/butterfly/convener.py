"""Who speaks first: the order in which members propose, drawn anew for every stage and epoch."""

from collections.abc import Collection

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes

_TAG = "iota-p2p/convener/1"
# An honest convener that had missed a contribution hears of it in the refusals, and tries once more.
TRIES_EACH = 2


def convener_order(epoch_seed: bytes, stage: int, peers: Collection[PeerId]) -> tuple[PeerId, ...]:
    """Return peers in the order in which they convene: by H(epoch seed, stage, peer)."""
    place = stage.to_bytes(8, "big")
    return tuple(sorted(peers, key=lambda peer_id: tagged_digest(_TAG, epoch_seed, place, peer_id_to_bytes(peer_id))))


def convener_of(epoch_seed: bytes, stage: int, peers: Collection[PeerId], attempt: int) -> PeerId:
    """Return who proposes in an attempt; each has TRIES_EACH of them before the next one's turn."""
    order = convener_order(epoch_seed, stage, peers)
    return order[attempt // TRIES_EACH % len(order)]
