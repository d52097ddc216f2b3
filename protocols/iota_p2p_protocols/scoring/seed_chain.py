"""The chain of epoch seeds: common random values that nobody could choose.

    seed_0     = tagged("iota-p2p/seed-genesis/1", run id)
    seed_{e+1} = tagged("iota-p2p/seed/1", seed_e, e + 1, peer, output, peer, output, ...)

with the VRF outputs that the validators of the newest certified result revealed, in order of their peers' id bytes.
An output is one value for a key and an input, so a validator can only reveal it or withhold it. k validators who act
as one and reveal last choose among 2^k seeds: that is the bias, and all of it (docs/decisions/0301).
"""

from collections.abc import Mapping

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_crypto.vrf import OUTPUT_BYTES
from iota_p2p_protocols.errors import LocalProtocolError

_GENESIS_TAG = "iota-p2p/seed-genesis/1"
_TAG = "iota-p2p/seed/1"
_EPOCH_BYTES = 8  # big-endian


def genesis_seed(run_id: bytes) -> Digest:
    """Return the seed of epoch 0: known to all beforehand, so nothing worth winning hangs on it."""
    return tagged_digest(_GENESIS_TAG, run_id)


def next_seed(seed: bytes, epoch: int, outputs: Mapping[PeerId, bytes]) -> Digest:
    """Return the seed of an epoch from that of the one before.

    Args:
        seed: of `epoch` - 1.
        epoch: whose seed it will be, at least 1.
        outputs: verified VRF outputs, 64 bytes each; with none the chain goes on, but anybody can foretell the value.
    """
    if epoch < 1 or any(len(output) != OUTPUT_BYTES for output in outputs.values()):
        raise LocalProtocolError(f"expected an epoch from 1 and outputs of {OUTPUT_BYTES} bytes, got epoch {epoch}")
    revealed = sorted((peer_id_to_bytes(peer_id), output) for peer_id, output in outputs.items())
    flat = [part for pair in revealed for part in pair]
    return tagged_digest(_TAG, seed, epoch.to_bytes(_EPOCH_BYTES, "big"), *flat)
