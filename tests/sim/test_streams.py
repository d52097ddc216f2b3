"""Calls between peers: pooled, bounded, fair, cancelled as a whole, and costly to abuse."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from iota_p2p.network.host import HostStream
from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryHost, MemoryNetwork, open_memory_network
from iota_p2p.network.offences import MAX_OFFENCES
from iota_p2p.network.stream_limits import StreamLimits
from iota_p2p.network.streams import Request, Response, Streams, open_streams
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, OversizedError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.framing import Head, Kind, encode_head
from iota_p2p_protocols.ids import ProtocolSpec

MIB = 2**20
SPEC = ProtocolSpec(id="/test/call/1", max_header_bytes=1024, max_payload_bytes=8 * MIB)
ONCE = ProtocolSpec(id="/test/once/1", max_header_bytes=1024, max_payload_bytes=8 * MIB, idempotent=False)
LINK = LinkModel(latency_s=0.01, jitter_s=0.005)
LIMITS = StreamLimits()


@dataclass
class Node:
    host: MemoryHost
    streams: Streams

    @property
    def peer_id(self) -> PeerId:
        return self.host.peer_id


@asynccontextmanager
async def nodes(
    count: int, limits: StreamLimits = LIMITS, link: LinkModel = LINK
) -> AsyncIterator[tuple[MemoryNetwork, list[Node]]]:
    """Open connected nodes; all are gone when the context ends."""
    async with open_memory_network(1, link) as network, trio.open_nursery() as nursery:

        async def run(host: MemoryHost, task_status: trio.TaskStatus[Node]) -> None:
            async with open_streams(host, limits) as streams:
                task_status.started(Node(host, streams))
                await trio.sleep_forever()

        hosts = [network.host(PeerId(f"peer-{i}")) for i in range(count)]
        for host in hosts[1:]:
            await host.connect((await hosts[0].addresses())[0])
        yield network, [await _start(nursery, run, host) for host in hosts]
        nursery.cancel_scope.cancel()


async def _start(nursery: trio.Nursery, run: Callable[..., Awaitable[None]], host: MemoryHost) -> Node:
    node: Node = await nursery.start(run, host)
    return node


async def echo(peer_id: PeerId, request: Request) -> Response:
    return Response({"caller": peer_id, **request.header}, request.payload)


async def hang(_peer_id: PeerId, _request: Request) -> Response:
    await trio.sleep_forever()
    return Response({})


def request_bytes(payload_bytes: int = 0, kind: Kind = Kind.REQUEST) -> bytes:
    return encode_head(Head(kind, {}, payload_bytes), max_header_bytes=1024, max_payload_bytes=2**40)


async def raw_stream(node: Node, peer: Node, data: bytes = b"", spec: ProtocolSpec = SPEC) -> HostStream:
    """Open a stream past the facility, and send bytes on it."""
    opened = await node.host.open_stream(peer.peer_id, spec.id)
    await opened.stream.send_all(data)
    return opened


async def wait_reset(opened: HostStream) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await _receive_for_ever(opened)


async def _receive_for_ever(opened: HostStream) -> None:
    while await opened.stream.receive_some():
        pass


async def _drip(opened: HostStream) -> None:
    while True:
        await opened.stream.send_all(b"x")
        await trio.sleep(0.5)


def assert_nothing_left(network: MemoryNetwork, *callees: Node) -> None:
    assert network.wires.num_streams == 0
    for node in callees:
        inbound = node.streams._inbound
        assert (inbound.calls, inbound.streams, inbound.budget.used_bytes) == ({}, {}, 0)
        assert not inbound.budget._lines


# Calls


async def test_call__returns_the_handlers_response(autojump_clock: MockClock) -> None:
    async with nodes(2) as (_, (a, b)):
        await b.streams.serve(SPEC, echo)
        response = await a.streams.call(b.peer_id, SPEC, Request({"x": 1}, bytes(3 * MIB)))
        assert response.header == {"caller": a.peer_id, "x": 1}
        assert response.payload == bytes(3 * MIB)


async def test_calls__reuse_a_stream__until_it_has_been_idle_for_long(autojump_clock: MockClock) -> None:
    async with nodes(2) as (network, (a, b)):
        await b.streams.serve(SPEC, echo)
        for _ in range(5):
            await a.streams.call(b.peer_id, SPEC, Request({}))
        assert network.wires._num_opened == 1
        assert network.wires.num_streams == 1
        await trio.sleep(2 * LIMITS.reuse_s)
        assert_nothing_left(network, b)


async def test_refusal__carries_its_reason__and_keeps_the_stream(autojump_clock: MockClock) -> None:
    async def decline(_peer_id: PeerId, _request: Request) -> Response:
        raise RefusedError("asleep", "come back tomorrow")

    async with nodes(2) as (network, (a, b)):
        await b.streams.serve(SPEC, decline)
        for _ in range(2):
            with pytest.raises(RefusedError, match="tomorrow") as caught:
                await a.streams.call(b.peer_id, SPEC, Request({}))
            assert caught.value.reason == "asleep"
        assert network.wires._num_opened == 1
        assert b.streams.ledger.counts(a.peer_id) == {}


@pytest.mark.parametrize("where", ["in the handler", "in its nursery"])
async def test_broken_rule__is_refused_by_name_and_charged(autojump_clock: MockClock, where: str) -> None:
    async def reject(_peer_id: PeerId, _request: Request) -> Response:
        raise MalformedError("test-rule", "expected \u2713, got \udc80" + "x" * 5000)

    async def reject_in_nursery(peer_id: PeerId, request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reject, peer_id, request)
        return Response({})

    async with nodes(2) as (_, (a, b)):
        await b.streams.serve(SPEC, reject if where == "in the handler" else reject_in_nursery)
        with pytest.raises(RefusedError) as caught:
            await a.streams.call(b.peer_id, SPEC, Request({}))
        assert caught.value.reason == "test-rule"
        assert b.streams.ledger.counts(a.peer_id) == {"test-rule": 1}


async def test_unavailable_further_on__is_unavailable_for_the_caller(autojump_clock: MockClock) -> None:
    async def fail(_peer_id: PeerId, _request: Request) -> Response:
        raise PeerUnavailableError("nobody home")

    async with nodes(2) as (_, (a, b)):
        await b.streams.serve(SPEC, fail)
        with pytest.raises(PeerUnavailableError, match="nobody home"):
            await a.streams.call(b.peer_id, SPEC, Request({}))
        assert b.streams.ledger.counts(a.peer_id) == {}


async def test_bug_in_a_handler__crashes() -> None:
    async def crash(_peer_id: PeerId, _request: Request) -> Response:
        raise LocalProtocolError("a bug")

    with pytest.RaisesGroup(LocalProtocolError, flatten_subgroups=True):
        async with nodes(2) as (_, (a, b)):
            await b.streams.serve(SPEC, crash)
            await a.streams.call(b.peer_id, SPEC, Request({}))


async def test_unknown_protocol__is_unavailable__and_leaves_nothing(autojump_clock: MockClock) -> None:
    async with nodes(2) as (network, (a, b)):
        with pytest.raises(PeerUnavailableError):
            await a.streams.call(b.peer_id, SPEC, Request({}))
        assert_nothing_left(network, b)


# Cancellation and faults


async def test_cancelling__travels_down_nested_calls(autojump_clock: MockClock) -> None:
    async with nodes(4) as (network, stages):
        running: set[PeerId] = set()

        def stage(index: int) -> Callable[[PeerId, Request], Awaitable[Response]]:
            async def handler(_peer_id: PeerId, request: Request) -> Response:
                running.add(stages[index].peer_id)
                try:
                    if index == 3:
                        await trio.sleep_forever()
                    return await stages[index].streams.call(stages[index + 1].peer_id, SPEC, request)
                finally:
                    running.remove(stages[index].peer_id)

            return handler

        for index in (1, 2, 3):
            await stages[index].streams.serve(SPEC, stage(index))
        with trio.move_on_after(10):
            await stages[0].streams.call(stages[1].peer_id, SPEC, Request({}, bytes(MIB)))
        await trio.lowlevel.checkpoint()
        assert running == {stage.peer_id for stage in stages[1:]}
        await trio.sleep(1)
        assert running == set()
        assert_nothing_left(network, *stages)


async def test_cancelled_call__leaves_no_dirty_stream_in_the_pool(autojump_clock: MockClock) -> None:
    async def late(peer_id: PeerId, request: Request) -> Response:
        await trio.sleep(request.header["delay_s"])
        return Response(request.header, b"late")

    async with nodes(2) as (_, (a, b)):
        await b.streams.serve(SPEC, late)
        for delay_ms in range(0, 100, 5):  # in every phase of a call: opening, sending, waiting, receiving
            with trio.move_on_after(delay_ms / 1000):
                await a.streams.call(b.peer_id, SPEC, Request({"delay_s": 0, "n": delay_ms}))
            answer = await a.streams.call(b.peer_id, SPEC, Request({"delay_s": 0, "n": -1}))
            assert answer.header["n"] == -1


@pytest.mark.parametrize("fault", ["crash", "partition"])
async def test_fault_in_mid_call__is_unavailable__and_cancels_the_handler(
    autojump_clock: MockClock, fault: str
) -> None:
    async with nodes(2) as (network, (a, b)):
        await b.streams.serve(SPEC, hang)
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(PeerUnavailableError):
                    await a.streams.call(b.peer_id, SPEC, Request({}, bytes(MIB)))

            nursery.start_soon(fail)
            await trio.sleep(2)
            assert b.streams._inbound.calls == {a.peer_id: 1}
            if fault == "crash":
                network.crash(b.peer_id)
            else:
                network.block([b.peer_id], [a.peer_id])
        await trio.sleep(1)
        assert_nothing_left(network, a, b)


@pytest.mark.parametrize("spec", [SPEC, ONCE])
async def test_stale_stream__is_replaced__only_if_that_is_safe(autojump_clock: MockClock, spec: ProtocolSpec) -> None:
    handled = 0

    async def handle(_peer_id: PeerId, _request: Request) -> Response:
        nonlocal handled
        handled += 1
        return Response({})

    async with nodes(2) as (network, (a, b)):
        await b.streams.serve(spec, handle)
        await a.streams.call(b.peer_id, spec, Request({}))
        # The other side closes just as the request is on its way to it: written, but not handled.
        for wire in list(network.wires._streams[a.peer_id, b.peer_id].values()):
            wire.close_end(b.peer_id)
        if spec.idempotent:
            await a.streams.call(b.peer_id, spec, Request({}))
        else:
            with pytest.raises(PeerUnavailableError):
                await a.streams.call(b.peer_id, spec, Request({}))
        assert handled == 1 + spec.idempotent


async def test_stale_stream__is_replaced__when_nothing_could_be_written(autojump_clock: MockClock) -> None:
    async with nodes(2) as (network, (a, b)):
        await b.streams.serve(ONCE, echo)
        await a.streams.call(b.peer_id, ONCE, Request({}))
        network.crash(b.peer_id)
        await trio.sleep(1)
        b.host.restart()
        await a.streams.call(b.peer_id, ONCE, Request({}))


# Abuse


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "half-open"),
        (b"\0", "slow-header"),
        (request_bytes()[:-1], "slow-header"),
        (request_bytes(MIB), "slow-payload"),
        (b"\xff" * 4, "frame-header-size"),
        (request_bytes(2**33), "frame-payload-size"),
        (b"\0\0\0\1\xc0", "frame-header"),
        (request_bytes(kind=Kind.OK), "frame-kind"),
    ],
)
async def test_abuse__costs_the_stream_and_is_charged(autojump_clock: MockClock, data: bytes, rule: str) -> None:
    async with nodes(2) as (network, (a, b)):
        await b.streams.serve(SPEC, echo)
        opened = await raw_stream(a, b, data)
        await wait_reset(opened)
        assert b.streams.ledger.counts(a.peer_id) == {rule: 1}
        await opened.stream.aclose()
        assert_nothing_left(network, b)


async def test_slow_loris__is_cut_off__however_steadily_it_drips(autojump_clock: MockClock) -> None:
    async with nodes(2) as (_, (a, b)):
        await b.streams.serve(SPEC, echo)
        opened = await raw_stream(a, b, request_bytes(MIB))
        before_s = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await _drip(opened)
        patience_s = LIMITS.grace_s + MIB / LIMITS.min_bytes_per_s
        assert trio.current_time() - before_s == pytest.approx(patience_s, abs=1)
        assert b.streams.ledger.counts(a.peer_id) == {"slow-payload": 1}


async def test_response_not_read__frees_the_server__and_is_charged(autojump_clock: MockClock) -> None:
    async def large(_peer_id: PeerId, _request: Request) -> Response:
        return Response({}, bytes(8 * MIB))

    async with nodes(2) as (_, (a, b)):
        await b.streams.serve(SPEC, large)
        await raw_stream(a, b, request_bytes())
        await trio.sleep(1000)
        assert b.streams.ledger.counts(a.peer_id) == {"slow-reader": 1}
        assert b.streams._inbound.streams == {}


async def test_bytes_before_the_response__cancel_the_handler__and_are_charged(autojump_clock: MockClock) -> None:
    async with nodes(2) as (network, (a, b)):
        await b.streams.serve(SPEC, hang)
        opened = await raw_stream(a, b, request_bytes())
        await trio.sleep(1)
        await opened.stream.send_all(b"x")
        await wait_reset(opened)
        assert b.streams.ledger.counts(a.peer_id) == {"frame-early": 1}
        await opened.stream.aclose()
        assert_nothing_left(network, b)


async def test_repeat_offender__is_refused_for_a_while__and_nobody_else(autojump_clock: MockClock) -> None:
    async with nodes(3) as (_, (a, b, c)):
        await b.streams.serve(SPEC, echo)
        for _ in range(MAX_OFFENCES + 1):
            await wait_reset(await raw_stream(a, b, b"\xff" * 4))
        assert b.streams.ledger.refuses(a.peer_id)
        with pytest.raises(PeerUnavailableError):
            await a.streams.call(b.peer_id, SPEC, Request({}))
        await c.streams.call(b.peer_id, SPEC, Request({}))
        await trio.sleep(60)
        await a.streams.call(b.peer_id, SPEC, Request({}))


async def test_malformed_response__is_charged_to_who_answered(autojump_clock: MockClock) -> None:
    async def answer_nonsense(inbound: HostStream) -> None:
        await inbound.stream.receive_some()
        await inbound.stream.send_all(b"\xff" * 100)

    async with nodes(2) as (network, (a, b)):
        await b.host.handle(SPEC.id, answer_nonsense)
        with pytest.raises(OversizedError):
            await a.streams.call(b.peer_id, SPEC, Request({}))
        assert a.streams.ledger.counts(b.peer_id) == {"frame-header-size": 1}
        await trio.sleep(1)
        assert network.wires.num_streams == 0


# Bounds and fairness


async def test_too_many_calls__are_refused_as_busy__and_the_stream_stays_in_step(autojump_clock: MockClock) -> None:
    async with nodes(2, StreamLimits(max_calls_per_peer=2)) as (_, (a, b)), trio.open_nursery() as nursery:
        await b.streams.serve(SPEC, hang)
        for _ in range(2):
            nursery.start_soon(a.streams.call, b.peer_id, SPEC, Request({}))
        await trio.sleep(1)
        for _ in range(2):
            with pytest.raises(RefusedError) as caught:
                await a.streams.call(b.peer_id, SPEC, Request({}, bytes(2 * MIB)))
            assert caught.value.reason == "busy"
        nursery.cancel_scope.cancel()


async def test_greedy_peer__does_not_starve_others(autojump_clock: MockClock) -> None:
    """One peer queues 30 large calls; another's single call is admitted after one of them at most."""
    limits = StreamLimits(max_payload_bytes=8 * MIB, max_payload_bytes_per_peer=8 * MIB)
    order: list[PeerId] = []

    async def slow(peer_id: PeerId, _request: Request) -> Response:
        order.append(peer_id)
        await trio.sleep(10)
        return Response({})

    async with nodes(3, limits) as (_, (greedy, modest, callee)), trio.open_nursery() as nursery:
        await callee.streams.serve(SPEC, slow)
        for _ in range(30):
            nursery.start_soon(greedy.streams.call, callee.peer_id, SPEC, Request({}, bytes(6 * MIB)))
        await trio.sleep(5)
        await modest.streams.call(callee.peer_id, SPEC, Request({}, bytes(6 * MIB)))
        assert order.index(modest.peer_id) <= 2
        assert callee.streams._inbound.budget.used_bytes <= limits.max_payload_bytes
        nursery.cancel_scope.cancel()


async def test_greedy_peer__leaves_room_for_others__under_its_own_share(autojump_clock: MockClock) -> None:
    limits = StreamLimits(max_payload_bytes=16 * MIB, max_payload_bytes_per_peer=8 * MIB)
    async with nodes(3, limits) as (_, (greedy, modest, callee)), trio.open_nursery() as nursery:
        await callee.streams.serve(SPEC, hang)
        await callee.streams.serve(ONCE, echo)
        for _ in range(10):
            nursery.start_soon(greedy.streams.call, callee.peer_id, SPEC, Request({}, bytes(4 * MIB)))
        await trio.sleep(60)
        assert callee.streams._inbound.budget.used_bytes == 8 * MIB
        with trio.fail_after(10):
            await modest.streams.call(callee.peer_id, ONCE, Request({}, bytes(8 * MIB)))
        nursery.cancel_scope.cancel()


async def test_waiting_for_admission__leaves_the_line__when_cancelled(autojump_clock: MockClock) -> None:
    limits = StreamLimits(max_payload_bytes=8 * MIB, max_payload_bytes_per_peer=8 * MIB)
    async with nodes(2, limits) as (network, (a, b)):
        await b.streams.serve(SPEC, hang)
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(a.streams.call, b.peer_id, SPEC, Request({}, bytes(8 * MIB)))
        await trio.sleep(200)
        assert_nothing_left(network, b)


async def test_protocol_beyond_the_peers_share__is_our_bug(autojump_clock: MockClock) -> None:
    async with nodes(1, StreamLimits(max_payload_bytes_per_peer=MIB)) as (_, (a,)):
        with pytest.raises(LocalProtocolError):
            await a.streams.serve(SPEC, echo)


async def test_a_thousand_calls__leak_nothing(autojump_clock: MockClock) -> None:
    async with nodes(3) as (network, (a, b, c)):
        await b.streams.serve(SPEC, echo)
        tasks_before = trio.lowlevel.current_statistics().tasks_living

        async def call_often(node: Node, count: int) -> None:
            for number in range(count):
                response = await node.streams.call(b.peer_id, SPEC, Request({"n": number}, bytes(number)))
                assert response.header["n"] == number

        await call_often(a, 500)
        async with trio.open_nursery() as nursery:
            for node in (a, c) * 10:
                nursery.start_soon(call_often, node, 25)
        await trio.sleep(2 * LIMITS.reuse_s)
        assert_nothing_left(network, a, b, c)
        assert trio.lowlevel.current_statistics().tasks_living == tasks_before
