"""The simulated network keeps the promises of `host`, obeys its link model and repeats itself exactly."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.host import GossipMessage, HostStream
from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryHost, MemoryNetwork, open_memory_network
from iota_p2p.network.memory_events import TraceEvent
from iota_p2p.network.memory_gossip import MAILBOX_MESSAGES
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId

# ruff: noqa: ARG001  a clock fixture acts by being asked for

PROTOCOL = "/test/1"
EXACT = LinkModel(latency_s=0.1, jitter_s=0.0)


@asynccontextmanager
async def swarm(
    size: int, link: LinkModel = EXACT, seed: int = 1, trace: Callable[[TraceEvent], None] | None = None
) -> AsyncIterator[tuple[MemoryNetwork, list[MemoryHost]]]:
    """Open a network in which every host is connected to the first."""
    async with open_memory_network(seed, link, trace) as network:
        hosts = [network.host(PeerId(f"peer-{i:03d}")) for i in range(size)]
        for host in hosts[1:]:
            await host.connect((await hosts[0].addresses())[0])
        yield network, hosts


async def receive_all(stream: trio.abc.ReceiveStream, max_bytes: int = 2**20) -> bytes:
    return b"".join([part async for part in _parts(stream, max_bytes)])


async def _parts(stream: trio.abc.ReceiveStream, max_bytes: int) -> AsyncIterator[bytes]:
    while part := await stream.receive_some(max_bytes):
        yield bytes(part)


async def echo(inbound: HostStream) -> None:
    await inbound.stream.send_all(await receive_all(inbound.stream))
    await inbound.stream.send_eof()


async def silence(_inbound: HostStream) -> None:
    await trio.sleep_forever()


async def call(host: MemoryHost, peer: MemoryHost, data: bytes) -> bytes:
    opened = await host.open_stream(peer.peer_id, PROTOCOL)
    async with opened.stream as stream:
        await stream.send_all(data)
        await stream.send_eof()
        return await receive_all(stream)


async def test_stream__carries_both_ways__with_authenticated_peers(autojump_clock: MockClock) -> None:
    callers = []

    async def note_and_echo(inbound: HostStream) -> None:
        callers.append((inbound.peer_id, inbound.protocol))
        await echo(inbound)

    async with swarm(2) as (network, (a, b)):
        await b.handle(PROTOCOL, note_and_echo)
        assert await call(a, b, b"hello" * 100_000) == b"hello" * 100_000
        await trio.sleep(1)
        assert callers == [(a.peer_id, PROTOCOL)]
        assert network.wires.num_streams == 0


async def test_stream__takes_the_latency_of_the_link(autojump_clock: MockClock) -> None:
    async with swarm(2) as (_, (a, b)):
        await b.handle(PROTOCOL, echo)
        before_s = trio.current_time()
        await call(a, b, b"x")
        # One round trip to open, one for the bytes.
        assert trio.current_time() - before_s == pytest.approx(0.4, abs=0.01)


async def test_bandwidth__is_shared_by_the_transfers_of_one_uplink(autojump_clock: MockClock) -> None:
    # Fair to within a window: the smaller it is, the closer to the same time both end.
    link = LinkModel(latency_s=0.001, jitter_s=0, up_bytes_per_s=1e6, down_bytes_per_s=1e6, window_bytes=2**17)
    took_s = {}

    async with swarm(3, link) as (_, (a, b, c)):

        async def send(peer: MemoryHost) -> None:
            before_s = trio.current_time()
            opened = await a.open_stream(peer.peer_id, PROTOCOL)
            await opened.stream.send_all(bytes(2_000_000))
            await opened.stream.send_eof()
            assert await receive_all(opened.stream) == b""
            took_s[peer.peer_id] = trio.current_time() - before_s

        async def sink(inbound: HostStream) -> None:
            await receive_all(inbound.stream)
            await inbound.stream.send_eof()

        await b.handle(PROTOCOL, sink)
        await c.handle(PROTOCOL, sink)
        await send(b)
        assert took_s[b.peer_id] == pytest.approx(2.0, rel=0.02)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, b)
            nursery.start_soon(send, c)
    assert took_s[b.peer_id] == pytest.approx(4.0, rel=0.05)
    assert took_s[c.peer_id] == pytest.approx(4.0, rel=0.05)


async def test_writer__waits__when_nobody_reads(autojump_clock: MockClock) -> None:
    async with swarm(2) as (_, (a, b)):
        await b.handle(PROTOCOL, silence)
        opened = await a.open_stream(b.peer_id, PROTOCOL)
        await opened.stream.send_all(bytes(EXACT.window_bytes))
        with trio.move_on_after(1000) as scope:
            await opened.stream.send_all(b"x")
        assert scope.cancelled_caught


async def test_loss__only_delays__a_stream(autojump_clock: MockClock) -> None:
    data = bytes(range(256)) * 8192
    async with swarm(2, LinkModel(loss=0.5)) as (_, (a, b)):
        await b.handle(PROTOCOL, echo)
        assert await call(a, b, data) == data


async def test_crash__breaks_streams_at_once(autojump_clock: MockClock) -> None:
    async with swarm(2) as (network, (a, b)):
        await b.handle(PROTOCOL, silence)
        opened = await a.open_stream(b.peer_id, PROTOCOL)
        before_s = trio.current_time()
        network.crash(b.peer_id)
        with pytest.raises(trio.BrokenResourceError):
            await opened.stream.receive_some()
        assert trio.current_time() == before_s
        with pytest.raises(PeerUnavailableError):
            await a.open_stream(b.peer_id, PROTOCOL)
        with pytest.raises(PeerUnavailableError):
            await b.open_stream(a.peer_id, PROTOCOL)
        b.restart()
        assert (await a.open_stream(b.peer_id, PROTOCOL)).peer_id == b.peer_id


async def test_graceful_close__delivers_what_was_sent__then_resets(autojump_clock: MockClock) -> None:
    async with swarm(2) as (_, (a, b)):

        async def greet(inbound: HostStream) -> None:
            await inbound.stream.send_all(b"bye")
            await b.aclose()

        await b.handle(PROTOCOL, greet)
        opened = await a.open_stream(b.peer_id, PROTOCOL)
        assert await opened.stream.receive_some() == b"bye"
        with pytest.raises(trio.BrokenResourceError):
            await opened.stream.receive_some()
        assert await a.connections() == []


async def test_unknown_protocol__is_unavailable(autojump_clock: MockClock) -> None:
    async with swarm(2) as (network, (a, b)):
        with pytest.raises(PeerUnavailableError):
            await a.open_stream(b.peer_id, "/unknown/1")
        assert network.wires.num_streams == 0


async def test_partition__delivers_late__when_it_heals_in_time(autojump_clock: MockClock) -> None:
    async with swarm(2) as (network, (a, b)):
        await b.handle(PROTOCOL, echo)
        opened = await a.open_stream(b.peer_id, PROTOCOL)
        network.block([a.peer_id], [b.peer_id])
        await opened.stream.send_all(b"late")
        await opened.stream.send_eof()
        await trio.sleep(10)
        network.heal()
        assert await receive_all(opened.stream) == b"late"


async def test_partition__breaks_streams__after_a_while(autojump_clock: MockClock) -> None:
    async with swarm(2) as (network, (a, b)):
        await b.handle(PROTOCOL, silence)
        opened = await a.open_stream(b.peer_id, PROTOCOL)
        before_s = trio.current_time()
        network.block([b.peer_id], [a.peer_id])
        with pytest.raises(trio.BrokenResourceError):
            await opened.stream.receive_some()
        assert trio.current_time() - before_s == pytest.approx(EXACT.break_after_s, abs=0.01)
        with pytest.raises(PeerUnavailableError):
            await a.open_stream(b.peer_id, PROTOCOL)
        assert trio.current_time() - before_s > EXACT.break_after_s + EXACT.dial_timeout_s
        network.heal()
        await a.open_stream(b.peer_id, PROTOCOL)


async def test_partition__is_directed__for_the_flow_of_bytes(autojump_clock: MockClock) -> None:
    async with swarm(2) as (network, (a, b)):
        arrived = trio.Event()

        async def wait_for_bytes(inbound: HostStream) -> None:
            assert await inbound.stream.receive_some() == b"through"
            arrived.set()

        await b.handle(PROTOCOL, wait_for_bytes)
        opened = await a.open_stream(b.peer_id, PROTOCOL)
        network.block([b.peer_id], [a.peer_id])
        await opened.stream.send_all(b"through")
        with trio.fail_after(1):
            await arrived.wait()


async def test_cancelled_open__leaks_no_stream(autojump_clock: MockClock) -> None:
    async with swarm(2) as (network, (a, b)):
        await b.handle(PROTOCOL, silence)
        with trio.move_on_after(0.05):
            await a.open_stream(b.peer_id, PROTOCOL)
        await trio.sleep(1)
        assert network.wires.num_streams == 0


async def test_gossip__reaches_every_other_subscriber_once(autojump_clock: MockClock) -> None:
    heard: list[tuple[PeerId, GossipMessage]] = []
    async with swarm(50) as (_, hosts), trio.open_nursery() as nursery:

        async def listen(host: MemoryHost) -> None:
            async with host.subscribe("topic") as messages:
                heard.append((host.peer_id, await anext(messages)))
                heard.append((host.peer_id, await anext(messages)))

        for host in hosts:
            nursery.start_soon(listen, host)
        await trio.sleep(1)
        await hosts[3].publish("topic", b"news")
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert sorted(peer_id for peer_id, _ in heard) == [host.peer_id for host in hosts if host is not hosts[3]]
    assert {message for _, message in heard} == {GossipMessage(hosts[3].peer_id, b"news")}


async def test_gossip__crosses_a_partition__only_through_peers_that_can(autojump_clock: MockClock) -> None:
    async with swarm(3) as (network, (a, b, c)), b.subscribe("topic") as at_b, c.subscribe("topic") as at_c:
        network.block([a.peer_id], [c.peer_id])
        await a.publish("topic", b"around")
        with trio.fail_after(1):
            assert (await anext(at_b)).data == b"around"
            assert (await anext(at_c)).data == b"around"
        network.block([b.peer_id], [c.peer_id])
        await a.publish("topic", b"lost")
        assert (await anext(at_b)).data == b"lost"
        network.heal()
        with trio.move_on_after(100) as scope:
            await anext(at_c)
        assert scope.cancelled_caught


async def test_gossip__drops_the_oldest__when_a_subscriber_does_not_read(autojump_clock: MockClock) -> None:
    async with swarm(2) as (_, (a, b)), b.subscribe("topic") as messages:
        for number in range(MAILBOX_MESSAGES + 1):
            await a.publish("topic", str(number).encode())
            await trio.sleep(0.01)
        await trio.sleep(1)
        assert (await anext(messages)).data == b"1"


async def test_providers__are_found_until_they_expire(autojump_clock: MockClock) -> None:
    key = bytes(32)
    async with swarm(30) as (_, hosts):
        await hosts[1].provide(key)
        await hosts[2].provide(key)
        assert set(await hosts[3].find_providers(key, 10)) == {hosts[1].peer_id, hosts[2].peer_id}
        assert len(await hosts[3].find_providers(key, 1)) == 1
        await trio.sleep(25 * 3600)
        assert await hosts[3].find_providers(key, 10) == []


async def test_providers__are_not_found__when_no_holder_is_in_reach(autojump_clock: MockClock) -> None:
    key = bytes(32)
    async with swarm(4) as (network, hosts):
        ids = [host.peer_id for host in hosts]
        network.block(ids[:2], ids[2:])
        await hosts[0].provide(key)
        assert await hosts[1].find_providers(key, 10) == [ids[0]]
        assert await hosts[2].find_providers(key, 10) == []


async def test_alone__is_in_no_dht(autojump_clock: MockClock) -> None:
    async with open_memory_network(1) as network:
        lonely = network.host(PeerId("lonely"))
        with pytest.raises(PeerUnavailableError):
            await lonely.provide(bytes(32))
        with pytest.raises(PeerUnavailableError):
            await lonely.open_stream(PeerId("anybody"), PROTOCOL)


def _busy_trace(seed: int) -> list[TraceEvent]:
    """Run calls, gossip and faults that all happen in the same instants."""
    trace: list[TraceEvent] = []

    async def main() -> None:
        async with (
            swarm(8, LinkModel(loss=0.1), seed, trace.append) as (network, hosts),
            trio.open_nursery() as nursery,
        ):
            for host in hosts:
                await host.handle(PROTOCOL, echo)
                nursery.start_soon(_gossip, host)
                for peer in hosts:
                    nursery.start_soon(_call_often, host, peer)
            await trio.sleep(3)
            network.block([hosts[0].peer_id], [hosts[1].peer_id])
            await trio.sleep(3)
            network.crash(hosts[2].peer_id)
            await trio.sleep(30)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return trace


async def _call_often(host: MemoryHost, peer: MemoryHost) -> None:
    for size in (1, 100_000, 300_000):
        try:
            await call(host, peer, bytes(size))
        except (PeerUnavailableError, trio.BrokenResourceError):
            await trio.sleep(1)


async def _gossip(host: MemoryHost) -> None:
    async with host.subscribe("topic") as messages:
        await host.publish("topic", host.peer_id.encode())
        async for message in messages:
            if len(message.data) < 20:
                await host.publish("topic", message.data + host.peer_id.encode())


def test_trace__is_the_same__for_the_same_seed() -> None:
    first = _busy_trace(1)
    assert len(first) > 1000
    assert _busy_trace(1) == first


def test_trace__differs__for_another_seed() -> None:
    assert _busy_trace(1) != _busy_trace(2)


@pytest.mark.slow
def test_swarm__simulates_an_hour_of_200_hosts__in_half_a_minute() -> None:
    """200 hosts, 2,500 messages in an hour of virtual time: half a million deliveries.

    Measured in processor time: machines are shared.
    """
    heard = [0]

    async def listen(host: MemoryHost) -> None:
        async with host.subscribe("topic") as messages:
            async for _ in messages:
                heard[0] += 1

    async def main() -> None:
        async with swarm(200, LinkModel()) as (_, hosts), trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(listen, host)
            for number in range(2500):
                await trio.sleep(3600 / 2500)
                await hosts[number % 200].publish("topic", str(number).encode())
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    before_s = time.process_time()
    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert heard[0] == 2500 * 199
    assert time.process_time() - before_s < 30
