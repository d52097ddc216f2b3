"""The real host, with real daemons on loopback."""

from contextlib import AsyncExitStack, suppress

import pytest
import trio

from iota_p2p.network.daemon import DaemonHost, open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.host import GossipMessage, HostStream
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, PeerUnavailableError, UserError
from tests.net.daemons import ECHO, LOOPBACK, echo, identity, open_hosts, receive_all

pytestmark = pytest.mark.net


async def test_stream__echoes_16_mib_and_half_closes() -> None:
    """The answer of a slow handler arrives whole although the opener has long announced its end."""
    sent = bytes(range(256)) * (16 * 2**20 // 256)

    async def answer_late(inbound: HostStream) -> None:
        assert inbound.protocol == ECHO
        data = await receive_all(inbound.stream)
        await inbound.stream.send_all(inbound.peer_id.encode() + data)
        await inbound.stream.send_eof()

    async with open_hosts(2) as (one, two):
        await two.handle(ECHO, answer_late)
        outbound = await one.open_stream(two.peer_id, ECHO)
        await outbound.stream.send_all(sent)
        await outbound.stream.send_eof()
        received = await receive_all(outbound.stream)
        assert received == one.peer_id.encode() + sent
        await outbound.stream.aclose()


async def test_stream__loses_nothing_when_the_handler_has_not_read_to_the_end() -> None:
    """What it announced as complete arrives, although its socket is closed with bytes unread."""
    reply = bytes(300_000)

    async def answer_early(inbound: HostStream) -> None:
        await inbound.stream.receive_some(1)
        await inbound.stream.send_all(reply)
        await inbound.stream.send_eof()

    async with open_hosts(2) as (one, two):
        await two.handle(ECHO, answer_early)
        for _ in range(20):
            outbound = await one.open_stream(two.peer_id, ECHO)
            async with outbound.stream:
                await outbound.stream.send_all(b"a question longer than the handler cares to read")
                await outbound.stream.send_eof()
                assert len(await receive_all(outbound.stream)) == len(reply)


async def test_connections__name_both_ends() -> None:
    async with open_hosts(2) as (one, two):
        assert [connection.peer_id for connection in await one.connections()] == [two.peer_id]
        (connection,) = await two.connections()
        assert f"{connection.address}/p2p/{one.peer_id}" in await one.addresses()
        assert not connection.relayed


async def test_disconnect__breaks_streams_and_does_not_mind_a_second_time() -> None:
    """The connection itself may come back at once: the daemons' DHTs dial whom they like."""
    async with open_hosts(2) as (one, two):
        await two.handle(ECHO, echo)
        outbound = await one.open_stream(two.peer_id, ECHO)
        async with outbound.stream:
            await one.disconnect(two.peer_id)
            await one.disconnect(two.peer_id)
            with pytest.raises(trio.BrokenResourceError):
                await outbound.stream.receive_some()


async def test_handler__resets_the_stream_when_it_refuses() -> None:
    async def refuse(inbound: HostStream) -> None:
        await inbound.stream.send_all(b"half an answer")
        raise MalformedError("test", "expected sense, got nonsense")

    async with open_hosts(2) as (one, two):
        await two.handle(ECHO, refuse)
        outbound = await one.open_stream(two.peer_id, ECHO)
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(outbound.stream)
        await outbound.stream.aclose()


async def test_handler__crashes_the_host_when_it_is_our_bug() -> None:
    async def err(inbound: HostStream) -> None:
        raise LocalProtocolError(f"a bug met {inbound.peer_id}")

    async def call_buggy_host(caller: DaemonHost) -> None:
        async with open_daemon_host(identity(9), LOOPBACK) as buggy:
            await buggy.handle(ECHO, err)
            await caller.connect((await buggy.addresses())[0])
            outbound = await caller.open_stream(buggy.peer_id, ECHO)
            async with outbound.stream:
                await trio.sleep_forever()

    async with open_hosts(1) as (one,):
        with pytest.raises(BaseExceptionGroup) as caught:
            await call_buggy_host(one)
        assert caught.value.subgroup(LocalProtocolError) is not None


async def test_handle__refuses_a_second_handler() -> None:
    async with open_hosts(1) as (one,):
        await one.handle(ECHO, echo)
        with pytest.raises(LocalProtocolError):
            await one.handle(ECHO, echo)


async def test_open_stream__peer_unavailable_when_unknown_or_not_serving() -> None:
    async with open_hosts(2) as (one, two):
        with pytest.raises(PeerUnavailableError):
            await one.open_stream(identity(77).peer_id, ECHO)
        with pytest.raises(PeerUnavailableError):
            await one.open_stream(two.peer_id, "/test/nobody/1")
        with pytest.raises(PeerUnavailableError):
            await one.connect(f"/ip4/127.0.0.1/tcp/1/p2p/{identity(77).peer_id}")


async def test_gossip__reaches_the_others_with_its_author_and_is_not_echoed() -> None:
    async with open_hosts(3) as hosts, AsyncExitStack() as stack:
        inboxes = [await stack.enter_async_context(host.subscribe("topic")) for host in hosts]
        second_inbox = await stack.enter_async_context(hosts[0].subscribe("topic"))
        found: list[set[GossipMessage]] = [set(), set(), set()]
        async with trio.open_nursery() as nursery:

            async def collect(index: int) -> None:
                while len(found[index]) < 2:
                    found[index].add(await anext(inboxes[index]))

            async def repeat(host: DaemonHost) -> None:
                while True:  # until GossipSub has built its mesh
                    await host.publish("topic", b"by " + host.peer_id.encode())
                    await trio.sleep(0.2)

            async with trio.open_nursery() as collecting:
                for index, host in enumerate(hosts):
                    collecting.start_soon(collect, index)
                    nursery.start_soon(repeat, host)
            nursery.cancel_scope.cancel()
        said = {GossipMessage(host.peer_id, b"by " + host.peer_id.encode()) for host in hosts}
        assert found == [{message for message in said if message.author != host.peer_id} for host in hosts]
        assert (await anext(second_inbox)).author != hosts[0].peer_id


async def test_gossip__can_be_subscribed_again_after_the_last_subscriber_left() -> None:
    async with open_hosts(2) as (one, two):
        async with one.subscribe("topic"):
            pass
        async with one.subscribe("topic") as inbox, trio.open_nursery() as nursery:

            async def repeat() -> None:
                while True:
                    await two.publish("topic", b"again")
                    await trio.sleep(0.2)

            nursery.start_soon(repeat)
            assert await anext(inbox) == GossipMessage(two.peer_id, b"again")
            nursery.cancel_scope.cancel()


async def test_providers__are_found_by_peers_that_do_not_know_them() -> None:
    """Once the routing tables have filled: a newcomer's first announcement may reach nobody who is asked."""
    async with open_hosts(4) as (one, two, three, four):
        for seeker in (two, four):
            found: set[str] = set()
            while found != {two.peer_id, three.peer_id}:
                with suppress(PeerUnavailableError):
                    await two.provide(b"k" * 32)
                    await three.provide(b"k" * 32)
                    found = set[str](await seeker.find_providers(b"k" * 32, 10))
        assert len(await four.find_providers(b"k" * 32, 1)) == 1
        assert await one.find_providers(b"x" * 32, 10) == ()


async def test_listen__user_error_when_the_port_is_taken() -> None:
    """By anybody, even by another daemon, with which the port would silently be shared."""
    async with open_hosts(1) as (one,):
        address = (await one.addresses())[0].partition("/p2p/")[0]
        with pytest.raises(UserError, match="choose another port"):
            async with open_daemon_host(identity(2), DaemonConfig(listen=(address,))):
                pass
        with pytest.raises(UserError, match="choose another address"):
            async with open_daemon_host(identity(2), DaemonConfig(listen=("/ip4/192.0.2.1/tcp/4001",))):
                pass


async def test_host__shrugs_off_garbage_on_its_sockets() -> None:
    async with open_hosts(2) as (one, two):
        await two.handle(ECHO, echo)
        port = int((await two.addresses())[0].split("/")[4])
        for _ in range(3):
            tcp = await trio.open_tcp_stream("127.0.0.1", port)
            await tcp.send_all(b"\x00garbage\xff" * 1000)
            await tcp.aclose()
        for garbage in (b"\xff" * 100, b"\x05hello", b"", b"\x80"):
            unix = await trio.open_unix_socket(str(two._inbound.path))
            await unix.send_all(garbage)
            await unix.aclose()
        outbound = await one.open_stream(two.peer_id, ECHO)
        await outbound.stream.send_all(b"still there")
        assert await outbound.stream.receive_some() == b"still there"
        await outbound.stream.aclose()
