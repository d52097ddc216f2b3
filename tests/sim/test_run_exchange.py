"""A run's spec and shards reach every peer that asks, whatever some of the others do."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.streams import Request, Response
from iota_p2p.run import shard_fetch
from iota_p2p.run.exchange import fetch_spec, serve_run
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.shard_fetch import ShardProgress, fetch_shards
from iota_p2p.run.shards import ShardStore, pack
from iota_p2p.run.spec import DataSpec, RunId, RunSpec, ShardRef
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError, UserError, WrongRunError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols import fetch
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.fetch import PieceAnswer, PieceRequest, SpecAnswer, cut_piece
from iota_p2p_protocols.ids import RUN_SPEC, SHARD
from tests.sim.calling_nodes import CallingNode, calling_nodes

PLAN = load_plan(Path(__file__).parents[2] / "configs" / "tiny.toml")
Answer = Callable[[PeerId, Request], Awaitable[Response]]


@pytest.fixture(autouse=True)
def _short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shard of 1,000 tokens take three pieces."""
    monkeypatch.setattr(fetch, "PIECE_BYTES", 400)
    monkeypatch.setattr(shard_fetch, "PIECE_BYTES", 400)


def make_run(store: ShardStore, num_shards: int = 8) -> RunSpec:
    refs = [store.add(pack(np.full(1000, value, np.uint32), 256)) for value in range(num_shards + 1)]
    return PLAN.with_data(DataSpec(train=tuple(refs[1:]), heldout=(refs[0],)), seed=0)


@pytest.fixture
def full(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "full")


@pytest.fixture
def empty(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "empty")


async def serve(node: CallingNode, spec: RunSpec, store: ShardStore, epoch: int = 5) -> None:
    await serve_run(node.streams, spec, store, lambda: epoch)


def whole(spec: RunSpec, store: ShardStore) -> bool:
    refs = (*spec.data.heldout, *spec.data.train)
    return all(store.has(ref) and store.read(ref) for ref in refs) and len(list(store.folder.iterdir())) == len(refs)


async def test_spec__comes_with_the_epoch(full: ShardStore, autojump_clock: MockClock) -> None:
    spec = make_run(full)
    async with calling_nodes(2) as (_, (us, peer)):
        await serve(peer, spec, full)
        assert await fetch_spec(us.streams, peer.peer_id, None) == (spec, 5)
        assert await fetch_spec(us.streams, peer.peer_id, spec.run_id) == (spec, 5)
        with pytest.raises(RefusedError, match="expected a request for run"):
            await fetch_spec(us.streams, peer.peer_id, RunId(bytes(31) + b"\1"))
        assert us.streams.ledger.counts(peer.peer_id) == {}


async def test_spec__unavailable_when_the_peer_is_in_no_run(autojump_clock: MockClock) -> None:
    async with calling_nodes(2) as (_, (us, peer)):
        with pytest.raises(PeerUnavailableError):
            await fetch_spec(us.streams, peer.peer_id, None)


async def test_spec__reject_one_of_another_run_and_charge(full: ShardStore, autojump_clock: MockClock) -> None:
    spec = make_run(full)
    other = spec.model_copy(update={"seed": 1})

    async def lie(peer_id: PeerId, request: Request) -> Response:
        return Response(SpecAnswer(epoch=0).to_fields(), other.to_bytes())

    async def babble(peer_id: PeerId, request: Request) -> Response:
        return Response(SpecAnswer(epoch=0).to_fields(), b"\xc1 spec")

    async with calling_nodes(3) as (_, (us, liar, babbler)):
        await liar.streams.serve(RUN_SPEC, lie)
        await babbler.streams.serve(RUN_SPEC, babble)
        with pytest.raises(WrongRunError):
            await fetch_spec(us.streams, liar.peer_id, spec.run_id)
        with pytest.raises(MalformedError):
            await fetch_spec(us.streams, babbler.peer_id, None)
        assert us.streams.ledger.counts(liar.peer_id) == {"run-id": 1}
        assert sum(us.streams.ledger.counts(babbler.peer_id).values()) == 1


async def test_shards__come_from_all_sources_held_out_first(
    full: ShardStore, empty: ShardStore, autojump_clock: MockClock
) -> None:
    spec = make_run(full)
    asked: list[tuple[PeerId, bytes]] = []

    def noting(node: CallingNode) -> Answer:
        async def answer(peer_id: PeerId, request: Request) -> Response:
            piece = PieceRequest.from_fields(request.header)
            asked.append((node.peer_id, piece.digest))
            data = (full.folder / f"{piece.digest.hex()}.tokens").read_bytes()
            return Response(PieceAnswer(total_bytes=len(data)).to_fields(), cut_piece(data, piece.index))

        return answer

    progress: list[ShardProgress] = []
    async with calling_nodes(3) as (_, (us, *peers)):
        for peer in peers:
            await peer.streams.serve(SHARD, noting(peer))
        await fetch_shards(us.streams, lambda: [p.peer_id for p in peers], spec, empty, progress.append)
    assert whole(spec, empty)
    assert {source for source, _ in asked} == {peer.peer_id for peer in peers}
    first_shards = list(dict.fromkeys(digest.hex() for _, digest in asked))[:4]  # as many are fetched at once
    assert spec.data.heldout[0].digest in first_shards
    assert len(asked) == 9 * 3, "nothing is asked for twice"
    assert progress[-1] == ShardProgress(9, 9, 9 * 1016)


async def test_shards__are_served_as_soon_as_they_are_there(
    full: ShardStore, empty: ShardStore, tmp_path: Path, autojump_clock: MockClock
) -> None:
    spec = make_run(full)
    late = ShardStore(tmp_path / "late")
    async with calling_nodes(3) as (_, (us, seed, middle)), trio.open_nursery() as nursery:
        await serve(middle, spec, empty)
        nursery.start_soon(fetch_shards, us.streams, lambda: [middle.peer_id], spec, late)
        await trio.sleep(5)
        assert not any(late.has(ref) for ref in spec.data.train)
        await serve(seed, spec, full)
        nursery.start_soon(fetch_shards, middle.streams, lambda: [seed.peer_id], spec, empty)
    assert whole(spec, late)


async def test_shards__survive_a_source_that_dies_in_the_middle(
    full: ShardStore, empty: ShardStore, autojump_clock: MockClock
) -> None:
    spec = make_run(full)
    async with calling_nodes(3) as (network, (us, mortal, other)):
        await serve(mortal, spec, full)
        await serve(other, spec, full)

        def kill_early(progress: ShardProgress) -> None:
            if progress.num_present == 2:
                network.crash(mortal.peer_id)

        await fetch_shards(us.streams, lambda: [mortal.peer_id, other.peer_id], spec, empty, kill_early)
        assert us.streams.ledger.counts(mortal.peer_id) == {}
    assert whole(spec, empty)


async def test_shards__go_on_after_an_interruption(
    full: ShardStore, empty: ShardStore, autojump_clock: MockClock
) -> None:
    spec = make_run(full)
    async with calling_nodes(2) as (_, (us, peer)):
        await serve(peer, spec, full)
        with trio.CancelScope() as scope:
            await fetch_shards(
                us.streams,
                lambda: [peer.peer_id],
                spec,
                empty,
                lambda p: scope.cancel() if p.num_present == 3 else None,
            )
        assert scope.cancelled_caught
        progress: list[ShardProgress] = []
        await fetch_shards(us.streams, lambda: [peer.peer_id], spec, empty, progress.append)
        assert progress[-1].num_present == 9
        assert progress[-1].fetched_bytes <= 6 * 1016
    assert whole(spec, empty)


def _wrong_bytes(total: int, piece: bytes) -> tuple[int, bytes]:
    return total, bytes([piece[0] ^ 1]) + piece[1:]


@pytest.mark.parametrize(
    ("twist", "rule"),
    [
        (_wrong_bytes, "shard-digest"),
        (lambda total, piece: (total, piece[:-1]), "piece-length"),
        (lambda total, piece: (total, piece + b"x"), "piece-length"),
        (lambda total, _: (total, b""), "piece-length"),
        (lambda total, piece: (total + 1, piece), "shard-size"),
        (lambda _, piece: (fetch.MAX_SHARD_BYTES, piece), "shard-size"),
        (lambda _, piece: (0, piece), "message-field"),
    ],
)
async def test_shards__drop_a_liar_and_charge_him(
    twist: Callable[[int, bytes], tuple[int, bytes]],
    rule: str,
    full: ShardStore,
    empty: ShardStore,
    autojump_clock: MockClock,
) -> None:
    spec = make_run(full)
    num_lies = 0

    async def lie(peer_id: PeerId, request: Request) -> Response:
        nonlocal num_lies
        num_lies += 1
        wanted = PieceRequest.from_fields(request.header)
        data = (full.folder / f"{wanted.digest.hex()}.tokens").read_bytes()
        total, piece = twist(len(data), cut_piece(data, wanted.index))
        return Response({"total_bytes": total}, piece)

    async with calling_nodes(3) as (_, (us, liar, other)):
        await liar.streams.serve(SHARD, lie)
        await serve(other, spec, full)
        await fetch_shards(us.streams, lambda: [liar.peer_id, other.peer_id], spec, empty)
        assert us.streams.ledger.counts(liar.peer_id).keys() == {rule}
        assert us.streams.ledger.counts(other.peer_id) == {}
    assert num_lies <= shard_fetch.PARALLEL_SHARDS * 3, "no more than what was under way"
    assert whole(spec, empty)


async def test_shards__pass_over_a_source_that_hangs(
    full: ShardStore, empty: ShardStore, autojump_clock: MockClock
) -> None:
    spec = make_run(full)

    async def hang(peer_id: PeerId, request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with calling_nodes(3) as (_, (us, hanging, other)):
        await hanging.streams.serve(SHARD, hang)
        await serve(other, spec, full)
        with trio.fail_after(2 * shard_fetch.PATIENCE_S):
            await fetch_shards(us.streams, lambda: [hanging.peer_id, other.peer_id], spec, empty)
    assert whole(spec, empty)


async def test_shards__replace_a_file_damaged_on_our_disk(
    full: ShardStore, empty: ShardStore, autojump_clock: MockClock
) -> None:
    spec = make_run(full)
    ref = spec.data.train[2]
    (empty.folder / f"{ref.digest}.tokens").write_bytes(full.read(ref)[:-1])
    async with calling_nodes(2) as (_, (us, peer)):
        await serve(peer, spec, full)
        await fetch_shards(us.streams, lambda: [peer.peer_id], spec, empty)
    assert whole(spec, empty)


async def test_damaged_shard__is_not_served(full: ShardStore, empty: ShardStore, autojump_clock: MockClock) -> None:
    spec = make_run(full)
    for ref in spec.data.train:
        (full.folder / f"{ref.digest}.tokens").write_bytes(b"damaged")
    async with calling_nodes(2) as (_, (us, peer)):
        await serve(peer, spec, full)
        with trio.move_on_after(10) as scope:
            await fetch_shards(us.streams, lambda: [peer.peer_id], spec, empty)
        assert scope.cancelled_caught
        assert us.streams.ledger.counts(peer.peer_id) == {}
        assert peer.streams.ledger.counts(us.peer_id) == {}
    assert empty.has(spec.data.heldout[0])


@pytest.mark.parametrize("absent", [ShardRef(digest="00" * 32, num_tokens=1)])
async def test_shard_of_no_run__is_refused(absent: ShardRef, full: ShardStore, autojump_clock: MockClock) -> None:
    spec = make_run(full)
    async with calling_nodes(2) as (_, (us, peer)):
        await serve(peer, spec, full)
        request = PieceRequest(digest=bytes.fromhex(absent.digest), index=0)
        with pytest.raises(RefusedError) as caught:
            await us.streams.call(peer.peer_id, SHARD, Request(request.to_fields()))
        assert caught.value.reason == "absent"


async def test_shards__say_so_when_the_disk_does_not_take_them(
    full: ShardStore, empty: ShardStore, autojump_clock: MockClock
) -> None:
    spec = make_run(full)
    empty.folder.rmdir()
    empty.folder.write_bytes(b"in the way")
    async with calling_nodes(2) as (_, (us, peer)):
        await serve(peer, spec, full)
        with pytest.raises(ExceptionGroup) as caught:
            await fetch_shards(us.streams, lambda: [peer.peer_id], spec, empty)
        assert caught.group_contains(UserError, match="cannot write to")
