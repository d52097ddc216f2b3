"""A stage's state reaches the peer that takes the stage over, whole and from one moment, or not at all."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.custody import snapshots
from iota_p2p.custody.fetch_journal import FetchJournal
from iota_p2p.custody.snapshots import IDLE_S, SHARE_S, SignedState, Snapshots, StateSigner, TakeState
from iota_p2p.network.link import LinkModel
from iota_p2p.network.streams import Request, Response
from iota_p2p.training.stage_state import StageState, StateBounds
from iota_p2p.training.state_fetch import StateProgress
from iota_p2p.training.state_transfer import StateServer
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols import state_manifest
from iota_p2p_protocols.custody import ChunkRequest, StateAnswer, StateRequest
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import STATE
from iota_p2p_protocols.message import seal_message
from iota_p2p_protocols.state_manifest import Listing, StateManifest, open_listing
from iota_p2p_testnet.simulation import virtual_clock
from tests.custody.keepers import (
    BOUNDS,
    CHUNK_BYTES,
    NUM_BYTES,
    RUN,
    STAGE,
    Node,
    beside,
    holding,
    nodes,
    state_of,
)

SHARED = state_of(0).checkpoint[-BOUNDS.weights_bytes :]  # merged weights; the moments before them differ


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_manifest, "CHUNK_BYTES", CHUNK_BYTES)


async def serve(node: Node, take: TakeState) -> None:
    await node.streams.serve(STATE, StateServer(RUN, Snapshots(take, node.signer)).answer)


async def listing_from(node: Node, peer: Node, stage: int = STAGE, run_id: bytes = RUN) -> Listing:
    request = StateRequest(run_id=run_id, stage=stage, kept=False)
    response = await node.streams.call(peer.peer_id, STATE, Request(request.to_fields()))
    envelope = StateAnswer.from_fields(response.header).manifest
    return open_listing(envelope, response.payload, run_id=RUN, now_s=virtual_clock())


async def read_chunk(node: Node, peer: Node, name: Digest) -> bytes:
    request = ChunkRequest(digest=name)
    return bytes((await node.streams.call(peer.peer_id, STATE, Request(request.to_fields()))).payload)


async def test_state__comes_back_whole(autojump_clock: MockClock) -> None:
    progress: list[StateProgress] = []
    async with nodes(2) as (us, holder):
        await holder.hold(state_of(0))
        assert await us.fetching(report=progress.append).run([holder.peer_id]) == state_of(0)
    assert progress[-1] == StateProgress(holder.peer_id, NUM_BYTES, NUM_BYTES)


async def test_state__is_of_one_moment_while_training_goes_on(autojump_clock: MockClock) -> None:
    num_taken = 0

    async def take(stage: int) -> StageState | None:
        nonlocal num_taken
        num_taken += 1
        return StageState(stage, num_taken, 0, bytes([num_taken]) * NUM_BYTES)

    async with nodes(2) as (us, holder):
        await serve(holder, take)
        first = await listing_from(us, holder)
        await trio.sleep(SHARE_S + 1)
        second = await listing_from(us, holder)
        assert await read_chunk(us, holder, first.digests[3]) == b"\1" * 100
        assert await read_chunk(us, holder, second.digests[3]) == b"\2" * 100


async def test_snapshot__is_shared_by_those_who_ask_together(autojump_clock: MockClock) -> None:
    async with nodes(3) as (us, other, holder):
        await holder.hold(state_of(0))
        names = set()

        async def ask(node: Node) -> None:
            names.add((await listing_from(node, holder)).name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, us)
            nursery.start_soon(ask, other)
        assert len(names) == 1


async def test_snapshot__is_dropped_when_nobody_asks_any_more(autojump_clock: MockClock) -> None:
    async with nodes(2) as (us, holder):
        await holder.hold(state_of(0))
        listing = await listing_from(us, holder)
        await trio.sleep(IDLE_S - 1)
        await read_chunk(us, holder, listing.digests[0])
        await trio.sleep(IDLE_S - 1)
        await read_chunk(us, holder, listing.digests[1])
        await trio.sleep(IDLE_S + 1)
        with pytest.raises(RefusedError) as caught:
            await read_chunk(us, holder, listing.digests[2])
        assert caught.value.reason == "absent"


async def test_snapshot__is_not_held_for_ever_by_asking(autojump_clock: MockClock) -> None:
    async with nodes(2) as (us, holder):
        await holder.hold(state_of(0))
        listing = await listing_from(us, holder)

        async def ask_for_ever() -> None:
            while True:
                await trio.sleep(IDLE_S / 2)
                await read_chunk(us, holder, listing.digests[0])

        with trio.fail_after(120), pytest.raises(RefusedError):
            await ask_for_ever()


async def test_snapshots__are_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT_BYTES", 2 * NUM_BYTES)

    async def take(stage: int) -> StageState | None:
        return StageState(stage, 0, 0, bytes(NUM_BYTES))

    async with nodes(2) as (us, holder):
        await serve(holder, take)
        for stage in (0, 1):
            await listing_from(us, holder, stage)
        with pytest.raises(RefusedError) as caught:
            await listing_from(us, holder, 2)
        assert caught.value.reason == "busy"
        await trio.sleep(IDLE_S + 1)
        await listing_from(us, holder, 2)


async def test_requests__refuse_what_is_not_here(autojump_clock: MockClock) -> None:
    async with nodes(2) as (us, holder):
        await holder.hold(state_of(0))
        for ask, reason in (
            (lambda: listing_from(us, holder, STAGE + 1), "not-held"),
            (lambda: listing_from(us, holder, run_id=bytes(32)), "other-run"),
            (lambda: read_chunk(us, holder, Digest(bytes(32))), "absent"),
            (lambda: us.fetching().ask(holder.peer_id, kept=True), "not-kept"),
        ):
            with pytest.raises(RefusedError) as caught:
                await ask()
            assert caught.value.reason == reason


async def test_state__comes_from_the_next_when_a_holder_dies_in_the_middle(autojump_clock: MockClock) -> None:
    """What both holders have in common is not sent again."""
    half = state_of(0).checkpoint[600:]
    other_state = StageState(STAGE, 6, 61, state_of(1).checkpoint[:600] + half)
    progress: list[StateProgress] = []
    async with nodes(3) as (us, mortal, other):
        await mortal.hold(state_of(0))
        await other.hold(other_state)

        def kill_early(now: StateProgress) -> None:
            progress.append(now)
            if now.signer == mortal.peer_id and now.fetched_bytes >= 400:
                us.network.crash(mortal.peer_id)

        assert await us.fetching(report=kill_early).run([mortal.peer_id, other.peer_id]) == other_state
        assert us.streams.ledger.counts(mortal.peer_id) == {}
    first_of_other = next(now for now in progress if now.signer == other.peer_id)
    # Chunks of the same instant as the fourth are there too; the two states share the last seven.
    assert 300 <= first_of_other.fetched_bytes <= len(half)


async def test_chunks__come_from_all_who_have_them(autojump_clock: MockClock) -> None:
    """Replicas that have merged share the weights' chunks, whatever their moments are."""
    ours, theirs = (StageState(STAGE, 6, 60, state_of(seed).checkpoint[:884] + SHARED) for seed in (1, 2))
    served: dict[PeerId, int] = {}
    async with nodes(3) as (us, first, second):
        for node, state in ((first, ours), (second, theirs)):
            server = StateServer(RUN, Snapshots(holding(state), node.signer))
            await server.snapshots.fresh(STAGE)

            async def answer(
                caller: PeerId, request: Request, server: StateServer = server, me: PeerId = node.peer_id
            ) -> Response:
                response = await server.answer(caller, request)
                served[me] = served.get(me, 0) + ("digest" in request.header)
                return response

            await node.streams.serve(STATE, answer)
        assert await us.fetching().run([first.peer_id, second.peer_id]) == ours
    assert served[second.peer_id] >= 2, "of the four chunks of the weights"
    assert served[first.peer_id] + served[second.peer_id] == 13


async def test_chunks__from_three_sources_come_in_a_third_of_the_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source's uplink is the bottleneck, as at home."""
    monkeypatch.setattr(state_manifest, "CHUNK_BYTES", 10_000)
    big = StateBounds(1_000_000, 300_000)
    state = StageState(STAGE, 6, 60, Random(0).randbytes(big.max_bytes))  # noqa: S311
    took_s = []
    for num_sources in (1, 3):
        async with nodes(4, LinkModel(latency_s=0.01, jitter_s=0, up_bytes_per_s=100_000)) as (us, *sources):
            signed = await StateSigner(sources[0].identity, RUN, lambda _: big, virtual_clock).sign(state)
            for node in sources:
                await keep(node, signed)
            began_s = trio.current_time()
            fetch = us.fetching(bounds=big)
            assert await fetch.fetch(signed.listing, [node.peer_id for node in sources[:num_sources]]) == state
            took_s.append(trio.current_time() - began_s)
    assert took_s[0] == pytest.approx(10, rel=0.1)
    assert took_s[1] == pytest.approx(took_s[0] / 3, rel=0.1)


async def test_chunks__go_on_coming_when_any_source_dies(autojump_clock: MockClock) -> None:
    for victim in range(3):
        async with nodes(4) as (us, *sources):
            signed = await sources[0].signed(state_of(0))
            for node in sources:
                await keep(node, signed)

            def kill(now: StateProgress, us: Node = us, dead: Node = sources[victim]) -> None:
                if 500 <= now.fetched_bytes < 600:
                    us.network.crash(dead.peer_id)

            fetch = us.fetching(report=kill)
            assert await fetch.fetch(signed.listing, [node.peer_id for node in sources]) == state_of(0)


async def test_fetch__resumes_after_a_restart_from_what_is_on_disk(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The first start is cut off in the middle; the second asks for what is missing, not for another state."""
    async with nodes(2) as (us, holder):
        signed = await holder.signed(state_of(0))
        asked = await keep(holder, signed)
        here: list[int] = []

        def cut_off(now: StateProgress) -> None:
            here.append(now.fetched_bytes)
            if here[-1] >= 500:
                scope.cancel()

        first = us.fetching(journal=FetchJournal(tmp_path, RUN, beside), report=cut_off)
        with trio.CancelScope() as scope:
            await first.fetch(signed.listing, [holder.peer_id])
        assert 500 <= here[-1] < NUM_BYTES
        before = len(asked)
        second = us.fetching(journal=FetchJournal(tmp_path, RUN, beside))
        assert await second.run([holder.peer_id]) == state_of(0)
        assert len(asked) - before <= 13 - here[-1] // 100
    assert not files_in(tmp_path), "nothing is left over"


async def test_fetch__takes_a_fresh_state_when_the_rest_of_the_old_one_is_gone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with nodes(3) as (us, dead, holder):
        signed = await dead.signed(state_of(0))
        journal = FetchJournal(tmp_path, RUN, beside)
        await journal.begin(signed.listing)
        await journal.put(signed.listing.digests[0], signed.chunk(0))
        us.network.crash(dead.peer_id)
        await holder.hold(state_of(1))
        assert await us.fetching(journal=journal).run([dead.peer_id, holder.peer_id]) == state_of(1)


async def test_damaged_chunk_on_disk__is_fetched_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with nodes(2) as (us, holder):
        signed = await holder.signed(state_of(0))
        asked = await keep(holder, signed)
        journal = FetchJournal(tmp_path, RUN, beside)
        await journal.begin(signed.listing)
        for index, name in enumerate(signed.listing.digests):
            await journal.put(name, signed.chunk(index))
        path = tmp_path / "chunks" / f"{signed.listing.digests[5].hex()}.chunk"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert await us.fetching(journal=journal).run([holder.peer_id]) == state_of(0)
        assert asked == [signed.listing.digests[5]]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("**/*") if path.is_file()]


async def keep(node: Node, signed: SignedState) -> list[bytes]:
    """Let a node serve the chunks of a state; return the list of those it was asked for."""
    asked: list[bytes] = []
    chunks = {name: signed.chunk(index) for index, name in enumerate(signed.listing.digests)}

    async def answer(caller: PeerId, request: Request) -> Response:
        await trio.sleep(0.01)
        asked.append(ChunkRequest.from_fields(request.header).digest)
        return Response({}, chunks[Digest(asked[-1])])

    await node.streams.serve(STATE, answer)
    return asked


async def test_state__unavailable_when_nobody_has_it__saying_why(autojump_clock: MockClock) -> None:
    async with nodes(3) as (us, holder, silent):
        await holder.hold(state_of(0))
        with pytest.raises(PeerUnavailableError, match="a stage that we hold"):
            await us.fetching(stage=5).run([silent.peer_id, holder.peer_id])
        with pytest.raises(PeerUnavailableError, match="nobody to ask"):
            await us.fetching().run([])


Twist = Callable[[StateManifest], StateManifest]


def changed(**fields: object) -> Twist:
    return lambda manifest: manifest.model_copy(update=fields)


@pytest.mark.parametrize(
    ("twist", "rule"),
    [
        (changed(stage=1), "state-stage"),
        (changed(num_bytes=NUM_BYTES + 1), "state-size"),
        (changed(weights_bytes=351), "state-size"),
        (changed(num_bytes=-1), "message-field"),
        (changed(num_bytes=NUM_BYTES - 100), "state-digests"),
        (changed(chunks_digest=bytes(32)), "state-digests"),
        (changed(theta_digest=bytes(32)), "state-theta"),
        (changed(run_id=bytes(32)), "run-id"),
        (changed(issued_s=1, expires_s=2), "expired"),
    ],
)
async def test_state__drop_who_signs_what_cannot_be_and_charge_him(
    twist: Twist, rule: str, autojump_clock: MockClock
) -> None:
    async with nodes(3) as (us, liar, honest):
        true = await liar.signed(state_of(0))
        envelope = seal_message(twist(true.listing.state), liar.identity)

        async def lie(caller: PeerId, request: Request) -> Response:
            if "digest" in request.header:
                return Response({}, chunk_of(true, request))
            return Response(StateAnswer(manifest=envelope).to_fields(), true.listing.packed_digests)

        await liar.streams.serve(STATE, lie)
        await honest.hold(state_of(1))
        assert await us.fetching().run([liar.peer_id, honest.peer_id]) == state_of(1)
        assert us.streams.ledger.counts(liar.peer_id).keys() == {rule}
        assert us.streams.ledger.counts(honest.peer_id) == {}


@pytest.mark.parametrize(
    ("twist", "rule"),
    [
        (lambda chunk: chunk[:-1], "chunk-length"),
        (lambda chunk: chunk + b"x", "chunk-length"),
        (lambda _: b"", "chunk-length"),
        (lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:], "chunk-digest"),
    ],
)
async def test_chunk__charge_who_lies_and_take_it_from_another(
    twist: Callable[[bytes], bytes], rule: str, autojump_clock: MockClock
) -> None:
    """The liar may even be the one whose state it is."""
    async with nodes(3) as (us, liar, honest):
        true = await liar.signed(state_of(0))

        async def lie(caller: PeerId, request: Request) -> Response:
            if "digest" in request.header:
                return Response({}, twist(chunk_of(true, request)))
            answer = StateAnswer(manifest=true.listing.manifest.envelope_bytes)
            return Response(answer.to_fields(), true.listing.packed_digests)

        await liar.streams.serve(STATE, lie)
        await keep(honest, true)
        assert await us.fetching().run([liar.peer_id], [honest.peer_id]) == state_of(0)
        assert us.streams.ledger.counts(liar.peer_id).keys() == {rule}
        assert us.streams.ledger.counts(honest.peer_id) == {}


async def test_state__drop_who_signs_numbers_that_fail_the_check(autojump_clock: MockClock) -> None:
    async def check(state: StageState) -> None:
        if state == state_of(0):
            raise MalformedError("state-range", "expected finite values, got none")

    async with nodes(3) as (us, liar, honest):
        await liar.hold(state_of(0))
        await honest.hold(state_of(1))
        assert await us.fetching(check=check).run([liar.peer_id, honest.peer_id]) == state_of(1)
        assert us.streams.ledger.counts(liar.peer_id) == {"state-range": 1}


async def test_state__pass_over_a_holder_that_hangs(autojump_clock: MockClock) -> None:
    async def hang(stage: int) -> StageState | None:
        await trio.sleep_forever()
        return None

    async with nodes(3) as (us, hanging, honest):
        await serve(hanging, hang)
        await honest.hold(state_of(1))
        assert await us.fetching().run([hanging.peer_id, honest.peer_id]) == state_of(1)


def chunk_of(signed: SignedState, request: Request) -> bytes:
    name = Digest(ChunkRequest.from_fields(request.header).digest)
    if name not in signed.listing.digests:
        raise RefusedError("absent", "expected another chunk")
    return signed.chunk(signed.listing.digests.index(name))
