"""More members than a roster takes meet in a grid, and all of them come to the same mean, whoever dies or lies."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from iota_p2p.merge.columns import ROWS_S, Columns
from iota_p2p.merge.encounter import Encounter, Outcome
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.memory import MergeMemory
from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.own_contribution import Origin, sign_contribution
from iota_p2p.merge.record import bytes_formula
from iota_p2p.merge.round import Committed, commit
from iota_p2p.training.held_stage import EpochWork
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.codec import block_counts
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.exchange import BlocksRequest, What
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.butterfly.grid import Seat, take_seat
from iota_p2p_protocols.butterfly.reduce import counted_samples, reduce_block
from iota_p2p_protocols.butterfly.row_mean import RowMean
from iota_p2p_protocols.message import open_signed, seal_message
from tests.merge.merging_nodes import MergingNode, gradients, merging_nodes

VALUES = 40_000  # two full blocks and a short one
SEED, BASE = digest(b"epoch seed"), digest(b"base")
INT8 = CODECS["int8"]


@dataclass
class Grid:
    """One merge of many members.

    Attributes:
        nodes: the members.
        vectors: what each has found, by member.
        samples: of how many microbatches.
        most: how many a roster takes.
    """

    nodes: Sequence[MergingNode]
    vectors: Sequence[Vector]
    samples: Sequence[int]
    most: int = 3

    def __post_init__(self) -> None:
        """Let everybody commit."""
        self.committed = [commit(vector.copy(), INT8, None) for vector in self.vectors]
        self.outcomes: dict[int, Outcome | None] = {}
        self.seconds: dict[int, float] = {}
        self.faults: dict[int, list[bytes]] = {number: [] for number in range(len(self.nodes))}
        self.num_values = len(self.vectors[0])

    @property
    def ids(self) -> list[PeerId]:
        """Who they are."""
        return [node.means.identity.peer_id for node in self.nodes]

    def seat(self, number: int) -> Seat:
        """Return a member's place."""
        return take_seat(SEED, 0, self.ids[number], self.ids, self.most)

    def row_of(self, number: int) -> list[int]:
        """Return a member's row, by number."""
        return [self.ids.index(peer_id) for peer_id in self.seat(number).rows[self.seat(number).row]]

    async def run(self, letters: Mapping[int, type[Letters]] | None = None) -> None:
        """Let all that are up merge, some with letters of their own."""

        async def merge(number: int) -> None:
            node, seat = self.nodes[number], self.seat(number)
            began_s = trio.current_time()
            async with trio.open_nursery() as nursery:
                node.letters = (letters or {}).get(number, Letters)(node.means, 0, 0, nursery)
                outcome = await self._encounter(number, seat, node.letters).run()
                if outcome is not None and len(seat.rows) > 1:
                    columns = Columns(
                        means=node.means,
                        letters=node.letters,
                        memory=node.memory,
                        seat=seat,
                        outcome=outcome,
                        accuse=self.faults[number].append,
                    )
                    outcome = await columns.run()
                    nursery.start_soon(columns.linger)
                self.outcomes[number] = outcome
                self.seconds[number] = trio.current_time() - began_s
                await trio.sleep(ROWS_S + 8)  # as the merge's last phase does: others may still ask
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number, node in enumerate(self.nodes):
                if node.host.up:
                    nursery.start_soon(merge, number)

    def _encounter(self, number: int, seat: Seat, letters: Letters) -> Encounter:
        node, committed = self.nodes[number], self.committed[number]
        origin = Origin(0, 0, BASE, "int8", seat.row, len(seat.rows))
        work = EpochWork(np.zeros(self.num_values, dtype=np.float32), self.samples[number], digest(b"log"))
        own = sign_contribution(node.means, origin, work, committed)
        node.memory.keep_committed(0, 0, own.digest, committed)
        return Encounter(
            means=node.means,
            letters=letters,
            memory=node.memory,
            own=own,
            committed=committed,
            seed=SEED,
            into_W=work.theta_W,
            expected=lambda: seat.mates,
        )

    def mean(self, rows: Sequence[Sequence[int]]) -> Vector:
        """Return the exact mean of some rows, each as its members are in its roster, by arithmetic of our own."""
        total_W, weight = np.zeros(self.num_values), 0
        for row in rows:
            counts = [self.samples[member] for member in row]
            counted = sum(counted_samples(counts))
            blocks = [
                reduce_block([_block(self.committed[m], index) for m in row], counts, INT8, values).encoded
                for index, values in enumerate(block_counts(self.num_values))
            ]
            total_W += counted * INT8.decode(b"".join(blocks), self.num_values).astype(np.float64)
            weight += counted
        return (total_W / weight).astype(np.float32)

    def rows_of(self, outcome: Outcome) -> list[list[int]]:
        """Return whose work is in an outcome, by rows, in the rosters' order."""
        return [[self.ids.index(PeerId(peer)) for peer in row.payload.peers] for row in outcome.rows]


def _block(committed: Committed, index: int) -> bytes:
    size = committed.codec.block_bytes
    return bytes(committed.encoded[index * size : (index + 1) * size])


def combined(grid: Grid, *but: int) -> list[Outcome]:
    """Return what everybody came to, some left out."""
    outcomes = [outcome for number, outcome in sorted(grid.outcomes.items()) if number not in but]
    assert None not in outcomes
    return [outcome for outcome in outcomes if outcome is not None]


@pytest.mark.parametrize("count", [4, 7, 9, 12])
async def test_grid__gives_everybody_the_exact_mean_of_all(count: int, autojump_clock: MockClock) -> None:
    """Rows of up to three: everybody's bytes are those of the mean of all rows, computed by the test itself."""
    samples = [10 + number for number in range(count)]
    vectors = gradients(count, VALUES)
    async with merging_nodes(count) as (_, nodes):
        grid = Grid(nodes, vectors, samples)
        await grid.run()
    outcomes = combined(grid)
    assert len(outcomes) == count
    assert len({tuple(row.digest for row in outcome.rows) for outcome in outcomes}) == 1
    rows = grid.rows_of(outcomes[0])
    assert sorted(member for row in rows for member in row) == list(range(count))
    assert {outcome.reduction.gradient_W.tobytes() for outcome in outcomes} == {grid.mean(rows).tobytes()}
    assert {(len(outcome.members), outcome.samples) for outcome in outcomes} == {(count, sum(samples))}
    direct = np.average(np.stack(vectors).astype(np.float64), axis=0, weights=samples)
    assert np.linalg.norm(grid.mean(rows) - direct) < 0.02 * np.linalg.norm(direct)  # clipping and the codec
    assert max(grid.seconds.values()) < 1


async def test_grid__is_one_butterfly_when_a_roster_takes_all(autojump_clock: MockClock) -> None:
    async with merging_nodes(4) as (_, nodes):
        grid = Grid(nodes, gradients(4, VALUES), [10] * 4, most=4)
        await grid.run()
    outcomes = combined(grid)
    assert [outcome.rows for outcome in outcomes] == [()] * 4
    assert {outcome.reduction.gradient_W.tobytes() for outcome in outcomes} == {grid.mean([range(4)]).tobytes()}


async def test_grid__takes_bytes_as_the_formula_says(autojump_clock: MockClock) -> None:
    """Three rows of three: what a butterfly of three takes, and the means of two other rows."""
    async with merging_nodes(9) as (_, nodes):
        grid = Grid(nodes, gradients(9, 3 * 16_384), [10] * 9)
        await grid.run()
    for outcome in combined(grid):
        lists = (2 + 2) * 3 * 32  # of block digests, of two mates and two rows
        assert bytes_formula(outcome.round_, 3) == outcome.reduction.bytes_in - lists


async def test_grid__goes_on_without_a_dead_member(autojump_clock: MockClock) -> None:
    """One of nine dies before it contributes: the eight others agree, on the mean of their own."""
    async with merging_nodes(9) as (network, nodes):
        grid = Grid(nodes, gradients(9, VALUES), [10] * 9)
        network.crash(grid.ids[4])
        await grid.run()
    outcomes = combined(grid)
    assert len(outcomes) == 8
    rows = grid.rows_of(outcomes[0])
    assert sorted(member for row in rows for member in row) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert {outcome.reduction.gradient_W.tobytes() for outcome in outcomes} == {grid.mean(rows).tobytes()}
    assert max(grid.seconds.values()) < 5


async def test_grid__leaves_out_a_row_of_which_too_few_are_left(autojump_clock: MockClock) -> None:
    """Two of one row's three are dead: the third cannot speak for it and fetches the result; six agree."""
    async with merging_nodes(9) as (network, nodes):
        grid = Grid(nodes, gradients(9, VALUES), [10] * 9)
        row = grid.row_of(0)
        for number in row[1:]:
            network.crash(grid.ids[number])
        await grid.run()
    assert grid.outcomes[0] is None
    outcomes = combined(grid, 0)
    rows = grid.rows_of(outcomes[0])
    assert sorted(member for one in rows for member in one) == sorted({*range(9)} - {*row})
    assert {outcome.reduction.gradient_W.tobytes() for outcome in outcomes} == {grid.mean(rows).tobytes()}
    assert max(grid.seconds.values()) < ROWS_S + 5


class OtherBlocks(MergeMemory):
    """Gives zeros for blocks that it was asked for: its contribution's and its row's mean's."""

    def blocks(self, request: BlocksRequest) -> Sequence[bytes | memoryview]:
        parts = super().blocks(request)
        return [parts[0], *(bytes(len(part)) for part in parts[1:])]


async def test_means_of_rows__are_taken_only_as_certified(autojump_clock: MockClock) -> None:
    """A member that serves other blocks than its row certified is charged; its mates give the right ones."""
    async with merging_nodes(9, {1: OtherBlocks()}) as (_, nodes):
        grid = Grid(nodes, gradients(9, VALUES), [10] * 9)
        await grid.run()
        mates, liar = grid.row_of(1), grid.ids[1]
        charged = [number for number, node in enumerate(nodes) if node.means.streams.ledger.counts(liar)]
    outcomes = combined(grid)
    assert len({outcome.reduction.gradient_W.tobytes() for outcome in outcomes}) == 1
    assert set(mates) - {1} < set(charged)


class TwoFaced(Letters):
    """Says other things of its row's mean to each mate."""

    def send(self, what: What, data: bytes, members: Sequence[PeerId]) -> None:  # type: ignore[override]  # a list
        if what != "row":
            return super().send(what, data, members)
        me = self.means.identity
        mean = open_signed(data, RowMean).payload
        for member in members:
            other = mean.model_copy(update={"root": digest(member.encode())})
            super().send(what, seal_message(other, me), [member])
        return None


async def test_member__that_signs_two_means_of_its_row_is_named(autojump_clock: MockClock) -> None:
    """Each mate passes on the vote that differs from its own; whoever holds two has the proof. The row is certified."""
    async with merging_nodes(9) as (_, nodes):
        grid = Grid(nodes, gradients(9, VALUES), [10] * 9)
        await grid.run({1: TwoFaced})
    honest = combined(grid, 1)
    assert len({outcome.reduction.gradient_W.tobytes() for outcome in honest}) == 1
    assert len(honest[0].rows) == 3
    for mate in set(grid.row_of(1)) - {1}:
        assert [(one.liar, one.kind) for one in map(verify_fault, grid.faults[mate])] == [(grid.ids[1], "row")]
    assert not any(faults for number, faults in grid.faults.items() if number not in grid.row_of(1))


class Usurper(Letters):
    """Speaks for its row alone, before that has come to anything."""

    def send(self, what: What, data: bytes, members: Sequence[PeerId]) -> None:  # type: ignore[override]  # a list
        if what == "column":
            me = self.means.identity
            mean = open_signed(data, RowMean).payload.model_copy(update={"peers": (me.peer_id,)})
            data = seal_message(mean, me)
        super().send(what, data, members)


async def test_member__cannot_speak_for_its_row_alone(autojump_clock: MockClock) -> None:
    async with merging_nodes(9) as (_, nodes):
        grid = Grid(nodes, gradients(9, VALUES), [10] * 9)
        await grid.run({1: Usurper})
        assert not any(node.means.streams.ledger.counts(grid.ids[1]) for node in nodes)  # views may differ
    assert len({outcome.reduction.gradient_W.tobytes() for outcome in combined(grid)}) == 1
    assert {tuple(len(row.payload.peers) for row in outcome.rows) for outcome in combined(grid)} == {(3, 3, 3)}
