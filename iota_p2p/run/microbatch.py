"""Which data a microbatch holds: a pure function of (epoch seed, source peer, counter) that anyone can recompute.

Each source peer walks its own keyed permutation of all windows. Guaranteed: within an epoch no peer meets a window
twice, but for second visits (`microbatch.SECOND_VISIT`), and no peer can choose its data. Between peers windows repeat
as in independent draws: two peers that take m and n of W windows share m n / W on average. That needs no list of who
takes part, so a peer that joins late has its data at once (docs/decisions/0103 weighs it against a partition).
"""

import hashlib
from collections.abc import Iterator

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.errors import LocalProtocolError
from iota_p2p_protocols.microbatch import SECOND_VISIT, MicrobatchId

_TAG = "iota-p2p/microbatch/1"
_ROUNDS = 4  # Luby and Rackoff: four rounds of a keyed function make a pseudorandom permutation


def window_indices(epoch_seed: bytes, microbatch: MicrobatchId, num_windows: int, size: int) -> tuple[int, ...]:
    """Return the indices of the `size` windows in a microbatch.

    `epoch_seed` is the epoch's common random value; it must not be known when peers choose their keys.

    Raises:
        LocalProtocolError: if the counter is out of range: see `microbatches_per_source`, by which a receiver
            checks a counter before it comes here.
    """
    limit = microbatches_per_source(num_windows, size)
    if microbatch.data_counter >= limit:
        raise LocalProtocolError(f"expected a counter below {limit}, got {microbatch.data_counter}")
    epoch = microbatch.epoch.to_bytes(8, "big")
    permutation = Permutation(tagged_digest(_TAG, epoch_seed, epoch, microbatch.source.encode()), num_windows)
    start = microbatch.data_counter * size
    return tuple(permutation[position] for position in range(start, start + size))


def microbatches_per_source(num_windows: int, size: int) -> int:
    """Return how many microbatches one peer can start in an epoch before its data would repeat."""
    return min(num_windows // size, SECOND_VISIT)


class Permutation:
    """A keyed permutation of range(count): a Feistel network on the next even power of two, walked into range.

    The domain is below 4 * count, so an index takes four walks at the worst of averages.
    """

    def __init__(self, key: bytes, count: int) -> None:
        if count < 1:
            raise LocalProtocolError(f"expected something to permute, got {count}")
        self.count = count
        self._half_bits = max(1, ((count - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half_bits) - 1
        self._rounds = [hashlib.blake2b(key=key, salt=bytes([r]), digest_size=8) for r in range(_ROUNDS)]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return (self[position] for position in range(self.count))

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self.count:
            raise IndexError(f"expected a position below {self.count}, got {position}")
        value = self._once(position)
        while value >= self.count:  # cycle walking: the cycle returns to `position`, which is in range
            value = self._once(value)
        return value

    def _once(self, value: int) -> int:
        left, right = value >> self._half_bits, value & self._mask
        for keyed in self._rounds:
            hasher = keyed.copy()
            hasher.update(right.to_bytes(8, "big"))
            left, right = right, left ^ (int.from_bytes(hasher.digest(), "big") & self._mask)
        return left << self._half_bits | right
