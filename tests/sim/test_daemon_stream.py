"""Chunked streams over memory streams."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.network.daemon_stream import ChunkedStream


def chunked_pair() -> tuple[ChunkedStream, ChunkedStream]:
    left, right = trio.testing.memory_stream_pair()
    return ChunkedStream(left), ChunkedStream(right)


async def receive_all(stream: ChunkedStream, max_bytes: int | None = None) -> bytes:
    parts = []
    while part := await stream.receive_some(max_bytes):
        assert max_bytes is None or len(part) <= max_bytes
        parts.append(part)
    return b"".join(parts)


@given(
    parts=st.lists(st.binary(max_size=100)),
    max_bytes=st.one_of(st.none(), st.integers(1, 20)),
    piece_bytes=st.integers(1, 50),
    num_received=st.integers(0, 10),
)
def test_chunked_stream__gives_the_bytes_sent_whatever_the_pieces(
    parts: list[bytes], max_bytes: int | None, piece_bytes: int, num_received: int
) -> None:
    """Chunks, pieces of the transport, reads and bytes received beforehand may be cut anywhere."""

    async def main() -> None:
        sending, wire = trio.testing.memory_stream_one_way_pair()
        sender = ChunkedStream(trio.StapledStream(sending, wire))
        for part in parts:
            await sender.send_all(part)
        await sender.send_eof()
        sending.close()
        data = b""
        while piece := await wire.receive_some():
            data += piece
        left, right = trio.testing.memory_stream_pair()
        receiver = ChunkedStream(right, data[:num_received])
        async with trio.open_nursery() as nursery:

            async def deliver() -> None:
                for start in range(num_received, len(data), piece_bytes):
                    await left.send_all(data[start : start + piece_bytes])
                    await trio.testing.wait_all_tasks_blocked()

            nursery.start_soon(deliver)
            assert await receive_all(receiver, max_bytes) == b"".join(parts)
            assert await receiver.receive_some() == b""

    trio.run(main)


async def test_chunked_stream__answers_after_the_other_end_announced_its_end() -> None:
    one, two = chunked_pair()
    await one.send_all(b"question")
    await one.send_eof()
    assert await receive_all(two) == b"question"
    await two.send_all(b"answer")
    await two.send_eof()
    assert await receive_all(one) == b"answer"


@pytest.mark.parametrize("cut", [0, 2, 4, 7])
async def test_chunked_stream__breaks_when_cut_without_an_end(cut: int) -> None:
    left, right = trio.testing.memory_stream_pair()
    await left.send_all(b"\0\0\0\x05hello"[:cut])
    await left.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await receive_all(ChunkedStream(right))


async def test_chunked_stream__is_reset_by_closing() -> None:
    one, two = chunked_pair()
    await one.send_all(b"half of it")
    await one.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await receive_all(two)
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()


async def test_chunked_stream__refuses_to_send_after_its_end() -> None:
    one, _ = chunked_pair()
    await one.send_eof()
    await one.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await one.send_all(b"more")


async def test_chunked_stream__refuses_two_senders_at_once() -> None:
    left, _ = trio.testing.lockstep_stream_pair()
    one = ChunkedStream(left)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send_all, b"this")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await one.send_all(b"that")
        nursery.cancel_scope.cancel()


async def test_chunked_stream__loses_nothing_when_receiving_is_cancelled() -> None:
    """Even in the middle of a length."""
    left, right = trio.testing.memory_stream_pair()
    receiver = ChunkedStream(right)
    for piece in (b"\0\0", b"\0"):
        await left.send_all(piece)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    await left.send_all(b"\x05hello")
    assert await receiver.receive_some() == b"hello"


async def test_chunked_stream__lingers_after_its_end_until_the_other_end_closes() -> None:
    one, two = chunked_pair()
    await one.linger()  # returns at once: no end was announced
    await one.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.linger)
        await two.send_all(b"never read")
        assert await two.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        await two.aclose()
