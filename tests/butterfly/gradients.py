"""Pseudo-gradients for the tests of the butterfly's arithmetic."""

import numpy as np

from iota_p2p_protocols.butterfly.codec import Vector


def vector(length: int, seed: int = 0) -> Vector:
    """Return values as unequal in size as pseudo-gradients are; by integer arithmetic, alike on every platform."""
    state = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15 + 2 * seed)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    fractions = (state >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    values: Vector = fractions * fractions * fractions * np.float32(0.01)
    return values
