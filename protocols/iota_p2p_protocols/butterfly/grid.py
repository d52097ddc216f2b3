"""The grid: how more replicas than one butterfly takes become one model in two rounds.

In the first round each row is a butterfly of its own, with its own roster. In the second every member has a column: one
member of each other row, from whom it fetches that row's mean, as two thirds of the row certified it (`row_mean`). It
combines all rows' means itself, weighted with what the rows counted, in the order of rows. So there is nobody in the
second round who could reduce wrongly, and everybody has the same inputs and comes to the same bytes.

Rows are drawn, so that liars cannot choose to be many in one. What a row holds is an opinion until its roster is
certified: contributions say which row of how many they are for, and rosters hold those of one row only.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, Codec, Encoded, Vector, block_counts
from iota_p2p_protocols.butterfly.reduce import Reducer, counted_samples
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import LocalProtocolError

# As many rows as a row has members at most: 4,096 replicas of one stage. Everybody fetches every other row's mean.
MAX_ROWS = MAX_MEMBERS
_TAG = "iota-p2p/grid/1"


@dataclass(frozen=True, slots=True)
class Seat:
    """One replica's place in a merge.

    Attributes:
        me: who it is.
        rows: who is in each row, in the order drawn.
        row: its own row.
    """

    me: PeerId
    rows: tuple[tuple[PeerId, ...], ...]
    row: int

    @property
    def mates(self) -> frozenset[PeerId]:
        """Its row, itself among it."""
        return frozenset(self.rows[self.row])

    def column(self) -> tuple[PeerId, ...]:
        """Return whom it gives its row's mean to, and has the others' of, first: one of each other row."""
        return tuple(self.sources(row)[0] for row in range(len(self.rows)) if row != self.row)

    def sources(self, row: int) -> tuple[PeerId, ...]:
        """Return the members of another row in the order in which it asks them: its own column's first."""
        place, others = self.rows[self.row].index(self.me), self.rows[row]
        return tuple(others[(place + step) % len(others)] for step in range(len(others)))


def take_seat(seed: bytes, stage: int, me: PeerId, others: Collection[PeerId], most: int) -> Seat:
    """Draw the rows of a merge and find our own.

    Args:
        seed: the epoch's.
        stage: the stage.
        me: who we are.
        others: its other replicas.
        most: how many a row takes; rows differ by one member at most. Beyond MAX_ROWS rows there are more in each,
            and who is too many is left out and fetches the result.
    """
    if not 1 <= most <= MAX_MEMBERS:
        raise LocalProtocolError(f"expected 1 to {MAX_MEMBERS} members in a row, got {most}")
    order = sorted({*others, me}, key=lambda peer_id: _rank(seed, stage, peer_id))
    num_rows = min(MAX_ROWS, -(-len(order) // most))
    edges = [row * len(order) // num_rows for row in range(num_rows + 1)]
    rows = tuple(tuple(order[edges[row] : edges[row + 1]]) for row in range(num_rows))
    return Seat(me, rows, next(number for number, row in enumerate(rows) if me in row))


def _rank(seed: bytes, stage: int, peer_id: PeerId) -> Digest:
    return tagged_digest(_TAG, seed, stage.to_bytes(8, "big"), peer_id_to_bytes(peer_id))


def combine_rows(
    rows: Sequence[Mapping[int, Encoded]], samples: Sequence[int], codec: Codec, num_values: int
) -> Vector:
    """Return the mean of the rows' means: the second round; takes long.

    Args:
        rows: each row's result blocks by index, in the order of rows; without those of shards that it lost.
        samples: for how many microbatches each row counts, but for no more than members do (`counted_samples`).
        codec: of the results.
        num_values: W.

    Returns:
        Zeros where every row lost the block.
    """
    mean_W = np.empty(num_values, dtype=np.float32)
    reducer = Reducer(counted_samples(samples), codec, min(num_values, BLOCK_VALUES))
    for index, count in enumerate(block_counts(num_values)):
        mean_W[index * BLOCK_VALUES :][:count] = reducer.combine([row.get(index) for row in rows], count)
    return mean_W
