"""Who speaks first: the order in which members propose, drawn anew for every stage and epoch."""

from collections.abc import Collection
from functools import lru_cache

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes

_TAG = "iota-p2p/convener/1"


@lru_cache(4096)  # asked anew at every letter; 64 members of 64 stages at 300 bytes, 1 MB
def convener_rank(epoch_seed: bytes, stage: int, peer_id: PeerId) -> Digest:
    """Return a peer's place in the order: H(epoch seed, stage, peer), which depends on nobody else."""
    return tagged_digest(_TAG, epoch_seed, stage.to_bytes(8, "big"), peer_id_to_bytes(peer_id))


def convener_order(epoch_seed: bytes, stage: int, peers: Collection[PeerId]) -> tuple[PeerId, ...]:
    """Return peers in the order in which they convene, the lowest rank first."""
    return tuple(sorted(peers, key=lambda peer_id: convener_rank(epoch_seed, stage, peer_id)))


def passed_over(epoch_seed: bytes, stage: int, members: Collection[PeerId], convener: PeerId) -> tuple[PeerId, ...]:
    """Return who of a certified roster's members should have convened before its convener, and was passed over.

    Two thirds signed for a later one, because by their clocks the turns before were over. That is what a silent
    convener leaves behind, and an honest one that was slow or out of reach: it is shown, and convicts nobody.
    """
    order = convener_order(epoch_seed, stage, members)
    return order[: order.index(convener)]
