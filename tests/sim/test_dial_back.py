"""A dial-back service dials its caller and nobody else, however it is asked."""
# ruff: noqa: ARG001 - pytest-trio uses the clock that a test names among its arguments

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.dial_back import DIAL_TIMEOUT_S, DialBack, ask_dial_back
from iota_p2p.network.host import Connection
from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryHost, MemoryNetwork, open_memory_network
from iota_p2p.network.streams import Request, Streams, open_streams
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.dial_back import Allowance
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import DIAL_BACK

CALLEE, CALLER, OTHER = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2, 3))
SEEN_AT = "/ip4/198.51.100.7/tcp/51234"


class AddressedHost(MemoryHost):
    """A simulated host that sees every connection come from one address."""

    seen_at = SEEN_AT

    async def connections(self) -> Sequence[Connection]:
        return [Connection(connection.peer_id, self.seen_at) for connection in await super().connections()]


@dataclass
class Listeners:
    """Who listens where; any other port hangs. Notes what is dialled."""

    by_port: dict[int, PeerId] = field(default_factory=dict)
    dialled: list[tuple[str, int]] = field(default_factory=list)

    async def identify(self, ip: str, port: int) -> PeerId:
        self.dialled.append((ip, port))
        if port == 1:
            raise PeerUnavailableError("expected a connection, got a refusal")
        if port == 2:
            raise MalformedError("not-libp2p", "expected libp2p, got something else")
        if port not in self.by_port:
            await trio.sleep_forever()
        return self.by_port[port]


@asynccontextmanager
async def service(listeners: Listeners, seen_at: str = SEEN_AT) -> AsyncIterator[tuple[MemoryNetwork, Streams]]:
    """Open a callee that offers dial-back; yields the caller's calls."""
    async with open_memory_network(1, LinkModel(latency_s=0.1, jitter_s=0.0)) as network, AsyncExitStack() as stack:
        callee = AddressedHost(network, CALLEE)
        callee.seen_at = seen_at
        network._hosts[CALLEE] = callee
        caller = network.host(CALLER)
        await DialBack(callee, listeners.identify, Allowance()).serve(
            await stack.enter_async_context(open_streams(callee))
        )
        await caller.connect(f"/memory/0/p2p/{CALLEE}")
        yield network, await stack.enter_async_context(open_streams(caller))


async def test_dial_back__reaches_the_caller_at_the_address_it_is_seen_at(autojump_clock: MockClock) -> None:
    listeners = Listeners({4001: CALLER, 4002: OTHER})
    async with service(listeners) as (_, streams):
        answer = await ask_dial_back(streams, CALLEE, [4001, 4002])
    assert answer.ip == "198.51.100.7"
    assert answer.reached == (True, False), "another peer's answer is not the caller's"
    assert listeners.dialled == [("198.51.100.7", 4001), ("198.51.100.7", 4002)]


async def test_dial_back__tells_closed_foreign_and_silent_ports_not_apart(autojump_clock: MockClock) -> None:
    async with service(Listeners()) as (_, streams):
        start_s = trio.current_time()
        answer = await ask_dial_back(streams, CALLEE, [1, 2, 3])
        assert trio.current_time() - start_s < DIAL_TIMEOUT_S + 1
    assert answer.reached == (False, False, False)


async def test_dial_back__refuses_a_caller_behind_a_relay(autojump_clock: MockClock) -> None:
    listeners = Listeners({4001: CALLER})
    async with service(listeners, f"/ip4/203.0.113.1/tcp/4001/p2p/{OTHER}/p2p-circuit") as (_, streams):
        with pytest.raises(RefusedError) as caught:
            await ask_dial_back(streams, CALLEE, [4001])
    assert caught.value.reason == "dial-back-relayed"
    assert listeners.dialled == []


async def test_dial_back__refuses_a_caller_that_asks_too_often(autojump_clock: MockClock) -> None:
    listeners = Listeners({4001: CALLER})
    async with service(listeners) as (_, streams):
        for _attempt in range(Allowance().per_peer):
            await ask_dial_back(streams, CALLEE, [4001])
        with pytest.raises(RefusedError) as caught:
            await ask_dial_back(streams, CALLEE, [4001])
        assert caught.value.reason == "dial-back-rate"
        assert len(listeners.dialled) == Allowance().per_peer
        await trio.sleep(60)
        assert (await ask_dial_back(streams, CALLEE, [4001])).reached == (True,)


async def test_dial_back__dials_one_at_a_time(autojump_clock: MockClock) -> None:
    listeners = Listeners({4001: CALLER})
    async with service(listeners) as (_, streams):
        reasons = []

        async def ask() -> None:
            try:
                await ask_dial_back(streams, CALLEE, [9])
            except RefusedError as error:
                reasons.append(error.reason)

        async with trio.open_nursery() as nursery:
            for _caller in range(4):
                nursery.start_soon(ask)
    assert reasons == ["dial-back-busy"] * 3
    assert listeners.dialled == [("198.51.100.7", 9)]


async def test_dial_back__stops_dialling_for_a_caller_that_left(autojump_clock: MockClock) -> None:
    listeners = Listeners({4001: CALLER})
    async with service(listeners) as (_, streams):
        with trio.move_on_after(1):
            await ask_dial_back(streams, CALLEE, [9, 9, 9])
        await trio.sleep(1)
        assert (await ask_dial_back(streams, CALLEE, [4001])).reached == (True,)
    assert len(listeners.dialled) == 2


async def test_dial_back__dials_nothing_for_a_malformed_request(autojump_clock: MockClock) -> None:
    listeners = Listeners({4001: CALLER})
    async with service(listeners) as (_, streams):
        for fields in ({"ports": (4001,), "ip": "192.0.2.1"}, {"ports": ()}, {}):
            with pytest.raises(RefusedError):
                await streams.call(CALLEE, DIAL_BACK, Request(fields))
    assert listeners.dialled == []
