"""Routing: which replica of the next stage gets a microbatch. Drawn, not chosen, and anyone can repeat the draw.

Weighted rendezvous hashing: each replica draws -log2(u) / weight, with u in (0, 1) hashed from the epoch seed, the
microbatch, the stage and the replica; the smallest comes first. These are races of exponential clocks, so a replica
is first with a probability proportional to its weight, and taking one away never changes the order of the others.

All arithmetic is on integers. Floating-point logarithms differ in their last bit between platforms, which would now
and then swap two replicas and make an honest peer look like one that chose its route.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.errors import InvalidProofError, LocalProtocolError
from iota_p2p_protocols.message import UINT63_MAX
from iota_p2p_protocols.refusal import Refusal

_TAG = "iota-p2p/route/1"
_HASH_BITS = 64
_LOG_BITS = 32  # after the binary point: a thousand replicas differ by a thousandth on average, two by 2^-32 never
# Two fractions a/b with b up to 2^63 that differ, differ by at least 2^-126: shifted by this they still do.
_QUOTIENT_BITS = 2 * 63


@dataclass(frozen=True, slots=True)
class Draw:
    """The order in which one microbatch tries the replicas of one stage.

    Attributes:
        microbatch: digest of the microbatch's id.
        stage: the stage.
        order: the replicas, first choice first.
    """

    microbatch: bytes
    stage: int
    order: tuple[PeerId, ...]


def draw_order(epoch_seed: bytes, microbatch: bytes, stage: int, weights: Mapping[PeerId, int]) -> Draw:
    """Draw the order of a stage's replicas for a microbatch.

    Args:
        epoch_seed: the epoch's common random value.
        microbatch: digest of the microbatch's id.
        stage: the stage to be drawn for.
        weights: what each replica is to carry, in any unit; those with 0 are left out.
    """
    scored = []
    for peer_id, weight in weights.items():
        if not 0 <= weight <= UINT63_MAX:
            raise LocalProtocolError(f"expected a weight in 0..2^63-1, got {weight} for {peer_id}")
        if weight:
            raw = peer_id_to_bytes(peer_id)
            hashed = tagged_digest(_TAG, epoch_seed, microbatch, stage.to_bytes(2, "big"), raw)
            ticks = negative_log2(int.from_bytes(hashed[: _HASH_BITS // 8], "big"))
            scored.append(((ticks << _QUOTIENT_BITS) // weight, raw, peer_id))
    return Draw(microbatch, stage, tuple(peer_id for _, _, peer_id in sorted(scored)))


def negative_log2(hashed: int) -> int:
    """Return -log2(u) * 2^32 rounded up, for u = (2 * hashed + 1) / 2^65 and 0 <= hashed < 2^64.

    The integer part is the number of leading zeros; each squaring of the mantissa, kept to 64 bits after the point,
    yields one more bit. The lost tails make a result at most one too large, alike on every platform.
    """
    odd = 2 * hashed + 1
    exponent = odd.bit_length() - 1  # 0..64
    mantissa = odd << (_HASH_BITS - exponent)  # in [1, 2), 64 bits after the point
    log = exponent
    for _ in range(_LOG_BITS):
        mantissa = (mantissa * mantissa) >> _HASH_BITS
        carry = mantissa >> (_HASH_BITS + 1)
        mantissa >>= carry
        log = (log << 1) | carry
    return ((_HASH_BITS + 1) << _LOG_BITS) - log


def explain_route(draw: Draw, taken: PeerId, refusals: Iterable[Verified[Refusal]]) -> Sequence[PeerId]:
    """Return the replicas before the one taken that did not refuse: skipped without an excuse.

    An honest caller skips such a replica when it cannot be reached, so a single skip proves nothing; auditors compare
    how often a caller skips whom.

    Raises:
        InvalidProofError: if the replica taken was not in the draw at all.
    """
    # [route-drawn] the replica taken holds the stage
    if taken not in draw.order:
        raise InvalidProofError("route-drawn", f"expected one of {len(draw.order)} replicas, got {taken}")
    excused = {
        refusal.signer
        for refusal in refusals
        if (refusal.payload.microbatch, refusal.payload.stage) == (draw.microbatch, draw.stage)
    }
    return tuple(peer_id for peer_id in draw.order[: draw.order.index(taken)] if peer_id not in excused)
