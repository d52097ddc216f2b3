"""The grid: how more members than one butterfly takes become one model in two rounds.

In the first round each row is a butterfly of its own (`reduce_block`). In the second each column is one, in which every
member brings its row's result, weighted with what the row counted (`combine_block`). The mean of the rows' means so
weighted is the mean of all members, and every column finds the same bytes, because every column has the same inputs in
the same order: the rows'.

A column needs exactly one member of each row. Rows differ by one member at most; where a short row has none left, its
first member takes part in that column, too.

Clipping and the bound on samples happen within rows, where the contributions are. Rows are drawn, so that liars cannot
choose to be many in one.
"""

from dataclasses import dataclass
from math import ceil, sqrt

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import LocalProtocolError

MAX_GRID_MEMBERS = MAX_MEMBERS**2
_TAG = "iota-p2p/grid/1"


@dataclass(frozen=True, slots=True)
class Grid:
    """Who meets whom.

    Attributes:
        rows: members of each group of the first round, rising.
        columns: of each group of the second round, in the order of rows; none if one row holds everybody.
    """

    rows: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]


def draw_grid(seed: Digest, num_members: int) -> Grid:
    """Draw the grid of a merge.

    Args:
        seed: a digest that nobody knew when committing.
        num_members: at most MAX_GRID_MEMBERS; as many rows as columns, as nearly as it goes.
    """
    if not 1 <= num_members <= MAX_GRID_MEMBERS:
        raise LocalProtocolError(f"expected 1 to {MAX_GRID_MEMBERS} members, got {num_members}")
    if num_members <= MAX_MEMBERS:
        return Grid((tuple(range(num_members)),), ())
    order = sorted(range(num_members), key=lambda member: tagged_digest(_TAG, seed, member.to_bytes(2, "big")))
    num_rows = ceil(sqrt(num_members))
    edges = [row * num_members // num_rows for row in range(num_rows + 1)]
    rows = tuple(tuple(sorted(order[edges[row] : edges[row + 1]])) for row in range(num_rows))
    columns = tuple(tuple(row[index % len(row)] for row in rows) for index in range(max(map(len, rows))))
    return Grid(rows, columns)
