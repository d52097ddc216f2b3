"""Members with a roster come to one mean, whoever dies or lies."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from iota_p2p.merge.collecting import Collecting
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.memory import MergeMemory
from iota_p2p.merge.reduction import Reduction, reduce_round
from iota_p2p.merge.round import Round
from iota_p2p_protocols.butterfly.exchange import BlocksRequest, ResultRequest
from iota_p2p_testnet.merge_adversaries import AgreedWrongResults, GarbageResults, WrongResults
from tests.merge.merging_nodes import MergingNode, gradients, merging_nodes, rounds

VALUES = 70_000  # four full blocks and a short one


async def reduce_all(
    nodes: list[MergingNode], all_rounds: list[Round], cheats: Mapping[int, type[Collecting]] | None = None
) -> dict[int, Reduction]:
    """Let all members that are up reduce, some in a way of their own; return what each came to."""
    reductions: dict[int, Reduction] = {}

    async def reduce(number: int) -> None:
        node, round_ = nodes[number], all_rounds[number]
        async with trio.open_nursery() as nursery:
            node.letters = Letters(node.means, 0, 0, nursery)
            collect = (cheats or {}).get(number, Collecting)
            into_W = np.ones(round_.num_values, dtype=np.float32)  # what was there before is gone afterwards
            reductions[number] = await reduce_round(
                node.means, round_, node.letters, node.memory, into_W=into_W, collect=collect
            )
            await trio.sleep(4)  # as the merge's last phase does: others may still ask
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number, node in enumerate(nodes):
            if node.host.up:
                nursery.start_soon(reduce, number)
    return reductions


@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
async def test_reduce_round__gives_all_members_the_same_mean(count: int, codec: str, autojump_clock: MockClock) -> None:
    """The bytes are equal, and near the mean weighted by samples; nothing is lost, nobody is blamed."""
    vectors, samples = gradients(count, VALUES), [10 + number for number in range(count)]
    async with merging_nodes(count) as (_, nodes):
        reductions = await reduce_all(nodes, rounds(nodes, vectors, codec, samples))
    first = reductions[0]
    assert len(reductions) == count
    assert {r.gradient_W.tobytes() for r in reductions.values()} == {first.gradient_W.tobytes()}
    assert all((r.here, r.lost_shards, r.liars) == (True, 0, frozenset()) for r in reductions.values())
    exact = np.average(np.stack(vectors).astype(np.float64), axis=0, weights=samples)
    assert np.linalg.norm(first.gradient_W - exact) < 0.02 * np.linalg.norm(exact)  # clipping and the codec


async def test_reduce_round__takes_bytes_as_the_formula_says(autojump_clock: MockClock) -> None:
    """Payload in: 2W(N-1)/N of blocks and W(N-2)/N of results, and the lists of digests."""
    count, num_values = 8, 28 * 16_384  # one block a shard
    async with merging_nodes(count) as (_, nodes):
        reductions = await reduce_all(nodes, rounds(nodes, gradients(count, num_values), "float32", [1] * count))
    lists = (count - 1) * 28 * 32
    formula = 4 * num_values * (2 * (count - 1) + count - 2) / count
    assert {r.bytes_in - lists for r in reductions.values()} == {int(formula)}


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_reduce_round__goes_on_without_the_dead(count: int, autojump_clock: MockClock) -> None:
    """One died before it gave a block: the others agree in less than 3 s, on the mean of their own."""
    async with merging_nodes(count) as (network, nodes):
        vectors = gradients(count, VALUES)
        all_rounds = rounds(nodes, vectors, "float32", [10] * count)
        network.crash(nodes[-1].means.identity.peer_id)
        began_s = trio.current_time()
        reductions = await reduce_all(nodes, all_rounds)
        assert trio.current_time() - began_s - 4 < 3
    assert len(reductions) == count - 1
    assert len({r.gradient_W.tobytes() for r in reductions.values()}) == 1
    assert all((r.here, r.lost_shards, r.liars) == (True, 0, frozenset()) for r in reductions.values())
    exact = np.mean(np.stack(vectors[:-1]).astype(np.float64), axis=0)
    assert np.linalg.norm(reductions[0].gradient_W - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("cheat", [WrongResults, AgreedWrongResults])
async def test_reducers__are_found_out_if_the_other_one_of_a_shard_is_honest(
    cheat: type[Collecting], autojump_clock: MockClock
) -> None:
    """One or two of six sign other results: all honest members name them, agree, and are right where one is honest."""
    liars = (1, 4) if cheat is AgreedWrongResults else (1,)
    async with merging_nodes(6) as (_, nodes):
        all_rounds = rounds(nodes, gradients(6, 30 * 16_384), "float32", [10] * 6)
        honest_result = await reduce_all(nodes, all_rounds)
    async with merging_nodes(6) as (_, nodes):
        all_rounds = rounds(nodes, gradients(6, 30 * 16_384), "float32", [10] * 6)
        reductions = await reduce_all(nodes, all_rounds, dict.fromkeys(liars, cheat))
    honest = [reductions[number] for number in range(6) if number not in liars]
    assert {r.liars for r in honest} == {frozenset(liars)}
    assert len({r.gradient_W.tobytes() for r in honest}) == 1
    wrong = np.flatnonzero(honest[0].gradient_W != honest_result[0].gradient_W)
    shared = [s.blocks for s in all_rounds[0].shard_map.shards if set(s.pair) <= set(liars)]
    assert set(wrong // 16_384) == {index for blocks in shared for index in blocks}


@pytest.mark.parametrize("codec", ["float32", "int8"])
async def test_results_that_do_not_decode__count_as_nothing_and_show_both_liars(
    codec: str, autojump_clock: MockClock
) -> None:
    """Both reducers of a shard sign the same garbage: all others do without it alike, and prove it of both."""
    liars = (1, 4)
    async with merging_nodes(6) as (_, nodes):
        all_rounds = rounds(nodes, gradients(6, 30 * 16_384), codec, [10] * 6)
        reductions = await reduce_all(nodes, all_rounds, dict.fromkeys(liars, GarbageResults))
    honest = [reductions[number] for number in range(6) if number not in liars]
    assert len({r.gradient_W.tobytes() for r in honest}) == 1
    assert all(r.here and r.liars == frozenset(liars) for r in honest)
    shared = [s.blocks for s in all_rounds[0].shard_map.shards if set(s.pair) == set(liars)]
    zeros = np.flatnonzero(~honest[0].gradient_W.reshape(-1, 16_384).any(axis=1))
    assert zeros.tolist() == [index for blocks in shared for index in blocks]


class OtherBlocks(MergeMemory):
    """Gives zeros for the blocks it committed to."""

    def blocks(self, request: BlocksRequest) -> Sequence[bytes | memoryview]:
        parts = super().blocks(request)
        return [parts[0], *(bytes(len(part)) for part in parts[1:])]


class OtherResults(MergeMemory):
    """Gives zeros for the results it signed."""

    def results(self, request: ResultRequest) -> Sequence[bytes | memoryview]:
        return [bytes(len(part)) for part in super().results(request)]


async def test_blocks__are_taken_only_as_committed(autojump_clock: MockClock) -> None:
    """A member that sends other blocks than it committed to is charged, and counts as missing."""
    async with merging_nodes(3, {1: OtherBlocks()}) as (_, nodes):
        reductions = await reduce_all(nodes, rounds(nodes, gradients(3, VALUES), "float32", [10] * 3))
        assert reductions[0].gradient_W.tobytes() == reductions[2].gradient_W.tobytes()
        for node in (nodes[0], nodes[2]):
            assert node.means.streams.ledger.counts(nodes[1].means.identity.peer_id) == {"block-digest": 1}


async def test_results__are_taken_only_as_signed(autojump_clock: MockClock) -> None:
    """A reducer that sends other results than it signed is charged; the other reducer's copy is as good."""
    async with merging_nodes(5, {1: OtherResults()}) as (_, nodes):
        reductions = await reduce_all(nodes, rounds(nodes, gradients(5, 20 * 16_384), "float32", [10] * 5))
        assert len({r.gradient_W.tobytes() for r in reductions.values()}) == 1
        assert all((r.here, r.lost_shards) == (True, 0) for r in reductions.values())
        charged = [node.means.streams.ledger.counts(nodes[1].means.identity.peer_id) for node in nodes]
        assert {"merge-result": 1} in charged
