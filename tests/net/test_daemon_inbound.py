"""The socket that the daemon dials, dialled by the test instead."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from iota_p2p.network import daemon_inbound
from iota_p2p.network.daemon_inbound import InboundStreams
from iota_p2p.network.delimited import encode_varint
from iota_p2p.network.host import HostStream
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_to_bytes


@pytest.fixture
def peer_ids() -> list[PeerId]:
    return [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(4)]


@asynccontextmanager
async def serve(folder: Path) -> AsyncGenerator[InboundStreams, None]:
    """Serve `/hold`, whose handler says hello and stays."""

    async def hold(inbound: HostStream) -> None:
        await inbound.stream.send_all(b"hello")
        await trio.sleep_forever()

    inbound = InboundStreams(folder / "in")
    inbound.handlers["/hold"] = hold
    async with await inbound.listen() as listener, trio.open_nursery() as nursery:
        nursery.start_soon(inbound.serve, listener)
        with trio.fail_after(5):
            yield inbound
        nursery.cancel_scope.cancel()


async def dial(inbound: InboundStreams, peer_id: PeerId, protocol: bytes = b"/hold") -> trio.SocketStream:
    body = b"\x0a\x26" + peer_id_to_bytes(peer_id) + b"\x12\x00\x1a" + encode_varint(len(protocol)) + protocol
    stream = await trio.open_unix_socket(str(inbound.path))
    await stream.send_all(encode_varint(len(body)) + body)
    return stream


async def is_served(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some() == b"\0\0\0\x05hello"
    except trio.BrokenResourceError:
        return False


async def test_inbound__serves_what_it_knows(tmp_path: Path, peer_ids: list[PeerId]) -> None:
    async with (
        serve(tmp_path) as inbound,
        await dial(inbound, peer_ids[0]) as known,
        await dial(inbound, peer_ids[0], b"/unknown") as unknown,
    ):
        assert await is_served(known)
        assert not await is_served(unknown)


async def test_inbound__refuses_streams_beyond_its_bounds(
    tmp_path: Path, peer_ids: list[PeerId], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One peer cannot take all places."""
    monkeypatch.setattr(daemon_inbound, "MAX_INBOUND_STREAMS", 3)
    monkeypatch.setattr(daemon_inbound, "MAX_INBOUND_STREAMS_PER_PEER", 2)
    async with serve(tmp_path) as inbound, AsyncExitStack() as stack:

        async def dial_as(peer_id: PeerId) -> bool:
            return await is_served(await stack.enter_async_context(await dial(inbound, peer_id)))

        assert [await dial_as(peer_ids[0]) for _ in range(3)] == [True, True, False]
        assert await dial_as(peer_ids[1])
        assert not await dial_as(peer_ids[2])
