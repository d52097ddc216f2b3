"""A stage's state reaches the peer that takes the stage over, whole and from one moment, or not at all."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

from collections.abc import Callable
from random import Random

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.streams import Request, Response
from iota_p2p.run.spec import RunId
from iota_p2p.training import state_transfer
from iota_p2p.training.stage_state import StageState
from iota_p2p.training.state_fetch import StateFetch, StateProgress
from iota_p2p.training.state_transfer import IDLE_S, SHARE_S, TakeState, serve_states
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols import fetch
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.fetch import ChunkRequest, StateManifest, StateRequest, digest_of_chunk
from iota_p2p_protocols.ids import STATE
from tests.sim.calling_nodes import CallingNode, calling_nodes

RUN = RunId(bytes(range(32)))
STAGE = 2
NUM_BYTES = 1234  # 13 chunks
STATE_OF = {seed: StageState(STAGE, 6, 60, Random(seed).randbytes(NUM_BYTES)) for seed in range(3)}  # noqa: S311


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "CHUNK_BYTES", 100)


def holding(state: StageState) -> TakeState:
    async def take(stage: int) -> StageState | None:
        await trio.sleep(0.5)
        return state if stage == state.stage else None

    return take


async def good(state: StageState) -> None:
    await trio.lowlevel.checkpoint()


def fetching(node: CallingNode, stage: int = STAGE, max_bytes: int = NUM_BYTES) -> StateFetch:
    return StateFetch(node.streams, RUN, stage, max_bytes, good)


async def open_snapshot(node: CallingNode, peer: CallingNode, stage: int = STAGE) -> StateManifest:
    request = StateRequest(run_id=RUN, stage=stage)
    return StateManifest.from_fields(
        (await node.streams.call(peer.peer_id, STATE, Request(request.to_fields()))).header
    )


async def read_chunk(node: CallingNode, peer: CallingNode, snapshot: bytes, index: int) -> bytes:
    request = ChunkRequest(snapshot=snapshot, index=index)
    return bytes((await node.streams.call(peer.peer_id, STATE, Request(request.to_fields()))).payload)


async def test_state__comes_back_whole(autojump_clock: MockClock) -> None:
    progress: list[StateProgress] = []
    async with calling_nodes(2) as (_, (us, holder)):
        await serve_states(holder.streams, RUN, holding(STATE_OF[0]))
        fetch_ = StateFetch(us.streams, RUN, STAGE, NUM_BYTES, good, progress.append)
        assert await fetch_.run([holder.peer_id]) == STATE_OF[0]
    assert progress[-1] == StateProgress(holder.peer_id, NUM_BYTES, NUM_BYTES)


async def test_state__is_of_one_moment_while_training_goes_on(autojump_clock: MockClock) -> None:
    num_taken = 0

    async def take(stage: int) -> StageState | None:
        nonlocal num_taken
        num_taken += 1
        return StageState(stage, num_taken, 0, bytes([num_taken]) * NUM_BYTES)

    async with calling_nodes(2) as (_, (us, holder)):
        await serve_states(holder.streams, RUN, take)
        first = await open_snapshot(us, holder)
        await trio.sleep(SHARE_S + 1)
        second = await open_snapshot(us, holder)
        assert await read_chunk(us, holder, first.snapshot, 3) == b"\1" * 100
        assert await read_chunk(us, holder, second.snapshot, 3) == b"\2" * 100


async def test_snapshot__is_shared_by_those_who_ask_together(autojump_clock: MockClock) -> None:
    async with calling_nodes(3) as (_, (us, other, holder)):
        await serve_states(holder.streams, RUN, holding(STATE_OF[0]))
        names = set()

        async def ask(node: CallingNode) -> None:
            names.add((await open_snapshot(node, holder)).snapshot)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, us)
            nursery.start_soon(ask, other)
        assert len(names) == 1


async def test_snapshot__is_dropped_when_nobody_asks_any_more(autojump_clock: MockClock) -> None:
    async with calling_nodes(2) as (_, (us, holder)):
        await serve_states(holder.streams, RUN, holding(STATE_OF[0]))
        manifest = await open_snapshot(us, holder)
        await trio.sleep(IDLE_S - 1)
        await read_chunk(us, holder, manifest.snapshot, 0)
        await trio.sleep(IDLE_S - 1)
        await read_chunk(us, holder, manifest.snapshot, 1)
        await trio.sleep(IDLE_S + 1)
        with pytest.raises(RefusedError) as caught:
            await read_chunk(us, holder, manifest.snapshot, 2)
        assert caught.value.reason == "unknown-snapshot"


async def test_snapshot__is_not_held_for_ever_by_asking(autojump_clock: MockClock) -> None:
    async with calling_nodes(2) as (_, (us, holder)):
        await serve_states(holder.streams, RUN, holding(STATE_OF[0]))
        manifest = await open_snapshot(us, holder)

        async def ask_for_ever() -> None:
            while True:
                await trio.sleep(IDLE_S / 2)
                await read_chunk(us, holder, manifest.snapshot, 0)

        with trio.fail_after(120), pytest.raises(RefusedError):
            await ask_for_ever()


async def test_snapshots__are_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_transfer, "MAX_SNAPSHOT_BYTES", 2 * NUM_BYTES)

    async def take(stage: int) -> StageState | None:
        return StageState(stage, 0, 0, bytes(NUM_BYTES))

    async with calling_nodes(2) as (_, (us, holder)):
        await serve_states(holder.streams, RUN, take)
        for stage in (0, 1):
            await open_snapshot(us, holder, stage)
        with pytest.raises(RefusedError) as caught:
            await open_snapshot(us, holder, 2)
        assert caught.value.reason == "busy"
        await trio.sleep(IDLE_S + 1)
        await open_snapshot(us, holder, 2)


async def test_requests__reject_what_is_not_here(autojump_clock: MockClock) -> None:
    async with calling_nodes(2) as (_, (us, holder)):
        await serve_states(holder.streams, RUN, holding(STATE_OF[0]))
        with pytest.raises(RefusedError) as caught:
            await open_snapshot(us, holder, STAGE + 1)
        assert caught.value.reason == "not-held"
        request = StateRequest(run_id=bytes(32), stage=STAGE)
        with pytest.raises(RefusedError) as caught:
            await us.streams.call(holder.peer_id, STATE, Request(request.to_fields()))
        assert caught.value.reason == "other-run"
        manifest = await open_snapshot(us, holder)
        with pytest.raises(RefusedError) as caught:
            await read_chunk(us, holder, manifest.snapshot, manifest.num_chunks)
        assert caught.value.reason == "chunk-index"
        assert holder.streams.ledger.counts(us.peer_id) == {"chunk-index": 1}


async def test_state__comes_from_the_next_when_a_holder_dies_in_the_middle(autojump_clock: MockClock) -> None:
    """What both holders have in common is not sent again."""
    half = STATE_OF[0].checkpoint[:600]
    other_state = StageState(STAGE, 6, 61, half + STATE_OF[1].checkpoint[600:])
    progress: list[StateProgress] = []
    async with calling_nodes(3) as (network, (us, mortal, other)):
        await serve_states(mortal.streams, RUN, holding(STATE_OF[0]))
        await serve_states(other.streams, RUN, holding(other_state))

        def kill_early(now: StateProgress) -> None:
            progress.append(now)
            if (now.source, now.fetched_bytes) == (mortal.peer_id, 400):
                network.crash(mortal.peer_id)

        fetch_ = StateFetch(us.streams, RUN, STAGE, NUM_BYTES, good, kill_early)
        assert await fetch_.run([mortal.peer_id, other.peer_id]) == other_state
        assert us.streams.ledger.counts(mortal.peer_id) == {}
    first_of_other = next(now for now in progress if now.source == other.peer_id)
    # Chunks of the same instant as the fourth are there too; the two states share six.
    assert 400 <= first_of_other.fetched_bytes <= 600


async def test_state__unavailable_when_nobody_has_it__saying_why(autojump_clock: MockClock) -> None:
    async with calling_nodes(3) as (_, (us, holder, silent)):
        await serve_states(holder.streams, RUN, holding(STATE_OF[0]))
        with pytest.raises(PeerUnavailableError, match="a stage that we hold"):
            await fetching(us, stage=5).run([silent.peer_id, holder.peer_id])
        with pytest.raises(PeerUnavailableError, match="nobody to ask"):
            await fetching(us).run([])


Twist = Callable[[StateManifest, list[Digest]], tuple[StateManifest, list[Digest]]]


@pytest.mark.parametrize(
    ("twist", "chunk_twist", "rule"),
    [
        (lambda m, d: (m.model_copy(update={"stage": 1}), d), None, "state-stage"),
        (lambda m, d: (m.model_copy(update={"num_bytes": NUM_BYTES + 1}), d), None, "state-size"),
        (lambda m, d: (m.model_copy(update={"num_bytes": -1}), d), None, "message-field"),
        (lambda m, d: (m, d[:-1]), None, "state-digests"),
        (lambda m, d: (m, [*d, d[0]]), None, "state-digests"),
        (lambda m, d: (m, [*d[:-1], d[0]]), None, "chunk-digest"),
        (lambda m, d: (m, d), lambda chunk: chunk[:-1], "chunk-length"),
        (lambda m, d: (m, d), lambda chunk: chunk + b"x", "chunk-length"),
        (lambda m, d: (m, d), lambda _: b"", "chunk-length"),
        (lambda m, d: (m, d), lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:], "chunk-digest"),
    ],
)
async def test_state__drop_a_liar_and_charge_him(
    twist: Twist, chunk_twist: Callable[[bytes], bytes] | None, rule: str, autojump_clock: MockClock
) -> None:
    data = STATE_OF[0].checkpoint

    async def lie(peer_id: PeerId, request: Request) -> Response:
        if "index" in request.header:
            index = ChunkRequest.from_fields(request.header).index
            chunk = fetch.cut_chunk(data, index)
            return Response({}, chunk_twist(chunk) if chunk_twist else chunk)
        true = StateManifest(snapshot=bytes(16), stage=STAGE, epoch=6, num_steps=60, num_bytes=NUM_BYTES)
        manifest, digests = twist(true, [digest_of_chunk(data, index) for index in range(true.num_chunks)])
        return Response(manifest.to_fields(), b"".join(digests))

    async with calling_nodes(3) as (_, (us, liar, honest)):
        await liar.streams.serve(STATE, lie)
        await serve_states(honest.streams, RUN, holding(STATE_OF[1]))
        assert await fetching(us).run([liar.peer_id, honest.peer_id]) == STATE_OF[1]
        assert us.streams.ledger.counts(liar.peer_id).keys() == {rule}
        assert us.streams.ledger.counts(honest.peer_id) == {}


async def test_state__drop_who_sends_numbers_that_fail_the_check(autojump_clock: MockClock) -> None:
    async def check(state: StageState) -> None:
        if state == STATE_OF[0]:
            raise MalformedError("state-range", "expected finite values, got none")

    async with calling_nodes(3) as (_, (us, liar, honest)):
        await serve_states(liar.streams, RUN, holding(STATE_OF[0]))
        await serve_states(honest.streams, RUN, holding(STATE_OF[1]))
        fetch_ = StateFetch(us.streams, RUN, STAGE, NUM_BYTES, check)
        assert await fetch_.run([liar.peer_id, honest.peer_id]) == STATE_OF[1]
        assert us.streams.ledger.counts(liar.peer_id) == {"state-range": 1}


async def test_state__pass_over_a_holder_that_hangs(autojump_clock: MockClock) -> None:
    async def hang(stage: int) -> StageState | None:
        await trio.sleep_forever()
        return None

    async with calling_nodes(3) as (_, (us, hanging, honest)):
        await serve_states(hanging.streams, RUN, hang)
        await serve_states(honest.streams, RUN, holding(STATE_OF[1]))
        assert await fetching(us).run([hanging.peer_id, honest.peer_id]) == STATE_OF[1]
