"""Hosts with real daemons on loopback, for the tests of this folder."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from iota_p2p.network.daemon import DaemonHost, open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.host import HostStream
from iota_p2p_crypto.identity import Identity

LOOPBACK = DaemonConfig(listen=("/ip4/127.0.0.1/tcp/0",))
ECHO = "/test/echo/1"


def identity(number: int) -> Identity:
    return Identity.from_seed(bytes([number]) * 32)


@asynccontextmanager
async def open_hosts(count: int, limit_s: float = 30) -> AsyncGenerator[Sequence[DaemonHost], None]:
    """Hosts that all know the first one, within the test's time limit."""
    with trio.fail_after(limit_s):
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(open_daemon_host(identity(1), LOOPBACK))
            config = DaemonConfig(listen=LOOPBACK.listen, bootstrap=await first.addresses())
            others = [
                await stack.enter_async_context(open_daemon_host(identity(number), config))
                for number in range(2, count + 1)
            ]
            yield (first, *others)


async def echo(inbound: HostStream) -> None:
    while data := await inbound.stream.receive_some():
        await inbound.stream.send_all(data)


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)
