"""Showing work: what is asked for comes in pieces, and whoever sends something else is charged."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from dataclasses import replace

import pytest
from trio.testing import MockClock

from iota_p2p.network.streams import Request, Response
from iota_p2p.training.payload_store import PayloadStore
from iota_p2p.training.return_store import ReturnStore
from iota_p2p.validation import replay_exchange
from iota_p2p.validation.replay_exchange import ReplayAnswer, ReplaySource, serve_replay
from iota_p2p.validation.segment_states import SegmentsKept
from iota_p2p.validation.work_keeper import KeptWork, WorkKeeper
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.activation import receive_response
from iota_p2p_protocols.ids import REPLAY
from iota_p2p_protocols.work_log import WorkLog
from tests.core.pathways import PEERS, gradient, response_of, sent_to, terms
from tests.sim.calling_nodes import calling_nodes

EPOCH, STAGE = 4, 1
STATES = (bytes(range(250)) * 5, b"end")


def keeper() -> WorkKeeper:
    kept = WorkKeeper(Identity.from_seed(bytes(32)), bytes(32))
    segments = SegmentsKept(WorkLog(), STATES, (b"stash",))
    kept._kept[EPOCH, STAGE] = KeptWork(EPOCH, STAGE, digest(b"theta"), segments)
    return kept


async def test_source__gets_states_in_pieces_and_payloads_that_are_there(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(replay_exchange, "PIECE_BYTES", 400)
    store = PayloadStore()
    names = [store.add(EPOCH, bytes([n]) * 100) for n in range(5)]
    async with calling_nodes(2) as (_, (caller, callee)):
        await serve_replay(callee.streams, keeper(), store, ReturnStore())
        source = ReplaySource(caller.streams, callee.peer_id, EPOCH, STAGE)
        assert [await source.fetch("checkpoint", 2000, index) for index in (0, 1)] == list(STATES)
        assert await source.fetch("stash", 10, 0) == b"stash"
        assert WorkLog.from_bytes(await source.fetch("log", 10)).entries == ()
        found = await source.payloads([*names, digest(b"another")], 100)
        assert found == {name: bytes([n]) * 100 for n, name in enumerate(names)}
        for what, index in (("checkpoint", 2), ("stash", 1)):
            with pytest.raises(PeerUnavailableError, match="one of"):
                await source.fetch(what, 2000, index)  # type: ignore[arg-type] # both are
        with pytest.raises(PeerUnavailableError):
            await ReplaySource(caller.streams, callee.peer_id, EPOCH + 1, STAGE).fetch("log", 10)


async def test_source__gets_the_receipts_that_are_there_from_whoever_they_came_to(autojump_clock: MockClock) -> None:
    """Whether or not it has work of its own to show."""
    returns = ReturnStore()
    answered = [receive_response(response_of(2, 4), gradient(2), PEERS[2].peer_id, sent=sent_to(2), terms=terms(4))]
    returns.add(EPOCH, 2, answered[0])
    record, envelope = answered[0].record.digest, answered[0].receipt.envelope_bytes
    async with calling_nodes(2) as (_, (caller, callee)):
        await serve_replay(callee.streams, keeper(), PayloadStore(), returns)
        source = ReplaySource(caller.streams, callee.peer_id, EPOCH, 2)
        assert await source.receipts([digest(b"another"), record]) == {record: envelope}
        assert await replace(source, epoch=EPOCH + 1).receipts([record]) == {}
        returns.forget_before(EPOCH + 1)
        assert await source.receipts([record]) == {}


def payload(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("total", "sent"),
    [(2001, b"piece"), (3, b"piece"), (100, b""), (0, b"")],
    ids=["more than allowed", "more than it says", "nothing", "nothing at all"],
)
async def test_source__charges_who_sends_another_state(total: int, sent: bytes, autojump_clock: MockClock) -> None:
    async def answer(_caller: PeerId, _request: Request) -> Response:
        return Response(ReplayAnswer(total=total).to_fields(), sent)

    async with calling_nodes(2) as (_, (caller, callee)):
        await callee.streams.serve(REPLAY, answer)
        with pytest.raises(MalformedError) as caught:
            await ReplaySource(caller.streams, callee.peer_id, EPOCH, STAGE).fetch("checkpoint", 2000)
        assert caught.value.rule == "replay-answer"


@pytest.mark.parametrize(
    ("total", "sent", "rule"),
    [
        (0, b"", "replay-answer"),
        (2, payload(b"asked for") * 2, "replay-answer"),
        (1, b"", "replay-answer"),
        (1, payload(b"asked for") + b"x", "replay-form"),
        (1, payload(b"asked for")[:-1], "replay-form"),
        (1, payload(b"another"), "replay-payload"),
        (1, payload(bytes(101)), "replay-payload"),
    ],
    ids=["none", "too many", "fewer", "a byte more", "a byte less", "another one", "a long one"],
)
async def test_source__charges_who_sends_other_payloads(
    total: int, sent: bytes, rule: str, autojump_clock: MockClock
) -> None:
    async def answer(_caller: PeerId, _request: Request) -> Response:
        return Response(ReplayAnswer(total=total).to_fields(), sent)

    async with calling_nodes(2) as (_, (caller, callee)):
        await callee.streams.serve(REPLAY, answer)
        with pytest.raises(MalformedError) as caught:
            await ReplaySource(caller.streams, callee.peer_id, EPOCH, STAGE).payloads([digest(b"asked for")], 100)
        assert caught.value.rule == rule
