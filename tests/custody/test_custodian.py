"""Pushing a state to a custodian: what it takes, what it refuses, and what comes back when the pusher is dead."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

import resource
from pathlib import Path
from random import Random
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.custody import pusher as pusher_module
from iota_p2p.custody.custodian import Custodian
from iota_p2p.custody.kept_states import KeptStates
from iota_p2p.custody.pusher import Pusher
from iota_p2p.custody.snapshots import SignedState, Snapshots
from iota_p2p.network.link import LinkModel
from iota_p2p.network.streams import Request, Response
from iota_p2p.training.stage_state import StageState
from iota_p2p.training.state_transfer import StateServer
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.errors import InvalidSignatureError, MalformedError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols import state_manifest
from iota_p2p_protocols.custody import PutRequest, Wanted, check_push, pack_indices
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import CUSTODY, STATE
from iota_p2p_protocols.view import View
from iota_p2p_testnet.simulation import virtual_clock
from tests.core.members import opened_advert
from tests.custody.keepers import BOUNDS, CHUNK_BYTES, NUM_BYTES, RUN, STAGE, Node, beside, holding, nodes, state_of


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_manifest, "CHUNK_BYTES", CHUNK_BYTES)


async def keeping(
    node: Node, everybody: list[Node], folder: Path, holders: set[PeerId], budget_bytes: int = 1 << 30
) -> Custodian:
    """Let a node keep states for the holders of all stages."""
    view = View(node.peer_id)
    for other in everybody:
        view.receive_advert(opened_advert(other.identity))
    kept = KeptStates(folder / node.peer_id, RUN, budget_bytes)
    custodian = Custodian(RUN, 4, kept, view, lambda _: holders, lambda _: BOUNDS, virtual_clock, beside)
    snapshots = Snapshots(holding(), node.signer)
    await node.streams.serve(CUSTODY, custodian.answer)
    await node.streams.serve(STATE, StateServer(RUN, snapshots, custodian.best, custodian.chunk).answer)
    return custodian


def pusher_of(node: Node) -> Pusher:
    """Return a pusher that is told what to push."""
    snapshots = Snapshots(holding(), node.signer)
    view = View(node.peer_id)
    return Pusher(cast("WorkShare", None), view, node.streams, snapshots.fresh, Random(0))  # noqa: S311 - repeatable


async def refusal_of(node: Node, target: Node, state: SignedState) -> str:
    with pytest.raises(RefusedError) as caught:
        await pusher_of(node)._push_to(target.peer_id, state)
    return caught.value.reason


async def test_pushed_state__is_fetched_from_custodians_when_its_holder_is_dead(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with nodes(4) as (holder, one, other, joiner):
        everybody, holders = [holder, one, other, joiner], {holder.peer_id}
        state = await holder.signed(state_of(0))
        for node in (one, other):
            await keeping(node, everybody, tmp_path, holders)
            assert await pusher_of(holder)._push_to(node.peer_id, state) == NUM_BYTES
            assert await pusher_of(holder)._push_to(node.peer_id, state) == 0, "nothing has changed"
        holder.network.crash(holder.peer_id)
        fetch = joiner.fetching()
        listing = await fetch.ask(one.peer_id, kept=True)
        assert (await fetch.ask(other.peer_id, kept=True)).name == listing.name
        check_push(listing.manifest, holder.peer_id)
        assert await fetch.fetch(listing, [one.peer_id, other.peer_id]) == state_of(0)


async def test_next_push__sends_what_changed_and_what_the_disk_lost(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with nodes(2) as (holder, keeper):
        custodian = await keeping(keeper, [holder, keeper], tmp_path, {holder.peer_id})
        pusher = pusher_of(holder)
        first = await holder.signed(state_of(0))
        await pusher._push_to(keeper.peer_id, first)
        await trio.sleep(1)
        tail = first.checkpoint[-BOUNDS.weights_bytes :]
        moved = StageState(STAGE, 6, 61, state_of(1).checkpoint[: -len(tail)] + tail)
        assert await pusher._push_to(keeper.peer_id, await holder.signed(moved)) == NUM_BYTES - len(tail)
        await trio.sleep(1)
        again = await holder.signed(moved)
        path = custodian.kept.chunks.folder / f"{again.listing.digests[4].hex()}.chunk"
        path.write_bytes(b"?" * CHUNK_BYTES)
        assert await custodian.chunk(again.listing.digests[4]) is None
        assert await pusher._push_to(keeper.peer_id, again) == CHUNK_BYTES
        assert pusher.pushed_bytes == NUM_BYTES + NUM_BYTES - len(tail) + CHUNK_BYTES


async def test_push__refused_without_blame_when_views_differ_or_there_is_no_room(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with nodes(5) as (holder, *keepers):
        state = await holder.signed(state_of(0))
        no_holder, replica, small, full_disk = keepers
        await keeping(no_holder, [holder, no_holder], tmp_path, set())
        assert await refusal_of(holder, no_holder, state) == "not-a-holder"
        await keeping(replica, [holder, replica], tmp_path, {holder.peer_id, replica.peer_id})
        assert await refusal_of(holder, replica, state) == "not-my-turn"
        await keeping(small, [holder, small], tmp_path, {holder.peer_id}, NUM_BYTES - 1)
        assert await refusal_of(holder, small, state) == "full"
        await keeping(full_disk, [holder, full_disk], tmp_path, {holder.peer_id})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))  # as a full disk does
        try:
            assert await refusal_of(holder, full_disk, state) == "disk"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert all(keeper.streams.ledger.counts(holder.peer_id) == {} for keeper in keepers)


def _stage(state: StageState, stage: int) -> StageState:
    return StageState(stage, state.epoch, state.num_steps, state.checkpoint)


async def test_push__charges_who_breaks_a_rule(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with nodes(3) as (liar, keeper, other):
        everybody = [liar, keeper, other]
        await keeping(keeper, everybody, tmp_path, {liar.peer_id})
        assert await refusal_of(liar, keeper, await other.signed(state_of(0))) == "push-signer"
        assert await refusal_of(liar, keeper, await liar.signed(_stage(state_of(0), 4))) == "push-stage"
        long = StageState(STAGE, 6, 60, bytes(NUM_BYTES + 1))
        assert await refusal_of(liar, keeper, await liar.signed(long)) == "state-size"
        true = await liar.signed(state_of(0))
        twisted = SignedState(true.listing, b"?" + true.checkpoint[1:])
        assert await refusal_of(liar, keeper, twisted) == "chunk-digest"
        put = PutRequest(manifest=bytes(32), index=0)
        with pytest.raises(RefusedError, match="offered"):
            await liar.streams.call(keeper.peer_id, CUSTODY, Request(put.to_fields(), b""))
        rules = ("push-signer", "push-stage", "state-size", "chunk-digest")
        assert keeper.streams.ledger.counts(liar.peer_id) == dict.fromkeys(rules, 1)


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (b"?", MalformedError),
        (pack_indices([13]), MalformedError),
        (pack_indices([2, 1]), MalformedError),
        (pack_indices([0]), PeerUnavailableError),  # for ever
    ],
)
async def test_custodian__that_wants_nonsense_is_passed_over(
    wanted: bytes, error: type[Exception], autojump_clock: MockClock
) -> None:
    async with nodes(2) as (holder, keeper):

        async def answer(caller: PeerId, request: Request) -> Response:
            return Response(Wanted().to_fields(), b"" if "index" in request.header else wanted)

        await keeper.streams.serve(CUSTODY, answer)
        with pytest.raises(error):
            await pusher_of(holder)._push_to(keeper.peer_id, await holder.signed(state_of(0)))
        charged = set(holder.streams.ledger.counts(keeper.peer_id))
        assert charged == set() if error is PeerUnavailableError else charged <= {"wanted-length", "wanted-order"}


async def test_pusher__rests_after_every_chunk_in_proportion_to_what_it_took(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the link is: a quarter of the time makes a push last almost four times as long."""
    for bytes_per_s in (1000, 10_000):
        link = LinkModel(latency_s=0.001, jitter_s=0, up_bytes_per_s=bytes_per_s)
        took_s = []
        for share in (1.0, 0.25):
            monkeypatch.setattr(pusher_module, "LINK_SHARE", share)
            async with nodes(2, link) as (holder, keeper):
                await keeping(keeper, [holder, keeper], tmp_path / f"{bytes_per_s} {share}", {holder.peer_id})
                state = await holder.signed(state_of(0))
                began_s = trio.current_time()
                await pusher_of(holder)._push_to(keeper.peer_id, state)
                took_s.append(trio.current_time() - began_s)
        assert 2 < took_s[1] / took_s[0] < 4


@pytest.mark.parametrize("more", [{"more": 1}, {"index": 1}, {"manifest": b""}, {"manifest": bytes(10_000)}])
async def test_request__reject_when_it_is_none(
    more: dict[str, int | bytes], autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with nodes(2) as (holder, keeper):
        custodian = await keeping(keeper, [holder, keeper], tmp_path, {holder.peer_id})
        state = await holder.signed(state_of(0))
        fields = {"manifest": state.listing.manifest.envelope_bytes, **more}
        with pytest.raises(RemoteProtocolError):
            await custodian.answer(holder.peer_id, Request(fields, state.listing.packed_digests))


async def test_push__of_another_run_is_rejected(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with nodes(2) as (holder, keeper):
        custodian = await keeping(keeper, [holder, keeper], tmp_path, {holder.peer_id})
        state = await holder.signed(state_of(0))
        custodian.run_id = bytes(32)
        assert await refusal_of(holder, keeper, state) == "run-id"
    with pytest.raises(InvalidSignatureError):
        check_push(state.listing.manifest, keeper.peer_id)
