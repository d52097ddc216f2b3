"""Streams of the network benchmark: throughput, small requests, opening, many at once (see `bench/network.py`)."""

import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from bench.network_rows import LISTEN, Row, identity, percentile_ms
from iota_p2p.network import control
from iota_p2p.network.control_client import ControlReader
from iota_p2p.network.daemon import DaemonHost, open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.host import HostStream
from iota_p2p.network.streams import Request, Response, Streams, open_streams
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.ids import ProtocolSpec

KIB, MIB = 2**10, 2**20
SIZES_BYTES = (64 * KIB, MIB, 16 * MIB)
HOST_PROTOCOL, BARE_PROTOCOL = "/bench/host/1", "/bench/bare/1"
SPEC = ProtocolSpec(id="/bench/call/1", max_header_bytes=KIB, max_payload_bytes=16 * MIB)
_RECEIVE_BYTES = 256 * KIB
_LENGTH_BYTES = 8
Exchange = Callable[[int], Awaitable[None]]  # sends so many bytes, waits for the acknowledgement


class Acknowledged:
    """One end of a byte stream: a length, so many bytes, and one byte back."""

    def __init__(self, stream: trio.abc.Stream, payload: bytes) -> None:
        self._stream = stream
        self._payload = memoryview(payload)

    async def exchange(self, size: int) -> None:
        """Send bytes and wait for the acknowledgement."""
        await self._stream.send_all(size.to_bytes(_LENGTH_BYTES, "big"))
        await self._stream.send_all(self._payload[:size])
        await self._stream.receive_some(1)


async def acknowledge(stream: trio.abc.Stream) -> None:
    """Be the other end until the stream ends."""
    rest = b""
    while True:
        while len(rest) < _LENGTH_BYTES:
            data = await stream.receive_some(_RECEIVE_BYTES)
            if not data:
                return
            rest += bytes(data)
        missing = int.from_bytes(rest[:_LENGTH_BYTES], "big") - (len(rest) - _LENGTH_BYTES)
        rest = b""
        while missing > 0:
            missing -= len(await stream.receive_some(min(missing, _RECEIVE_BYTES)))
        await stream.send_all(b"!")


@asynccontextmanager
async def open_ways() -> AsyncIterator[tuple[dict[str, Exchange], DaemonHost, Streams, PeerId]]:
    """Open every way to exchange messages, and what else the stream cases need."""
    payload = os.urandom(SIZES_BYTES[-1])
    async with AsyncExitStack() as stack:
        config = DaemonConfig(listen=(LISTEN,))
        one = await stack.enter_async_context(open_daemon_host(identity(1), config))
        two = await stack.enter_async_context(open_daemon_host(identity(2), config))
        await one.connect((await two.addresses())[0])
        caller = await stack.enter_async_context(open_streams(one))
        callee = await stack.enter_async_context(open_streams(two))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        raw = await _open_raw(nursery)
        bare = await _open_bare(nursery, one, two, Path(stack.enter_context(tempfile.TemporaryDirectory())) / "in")

        async def serve_host(inbound: HostStream) -> None:
            await acknowledge(inbound.stream)

        async def serve_call(peer_id: PeerId, request: Request) -> Response:  # noqa: ARG001 - it only acknowledges
            return Response({})

        await two.handle(HOST_PROTOCOL, serve_host)
        await callee.serve(SPEC, serve_call)
        through_host = (await one.open_stream(two.peer_id, HOST_PROTOCOL)).stream
        view = memoryview(payload)

        async def call(size: int) -> None:
            await caller.call(two.peer_id, SPEC, Request({}, view[:size]))

        exchanges: dict[str, Exchange] = {
            "raw": Acknowledged(raw, payload).exchange,
            "bare": Acknowledged(bare, payload).exchange,
            "host": Acknowledged(through_host, payload).exchange,
            "call": call,
        }
        yield exchanges, one, caller, two.peer_id


async def _open_raw(nursery: trio.Nursery) -> trio.SocketStream:
    listeners = await nursery.start(partial(trio.serve_tcp, acknowledge, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    return await trio.open_tcp_stream("127.0.0.1", port)


async def _open_bare(nursery: trio.Nursery, one: DaemonHost, two: DaemonHost, path: Path) -> trio.SocketStream:
    """Open a stream through both daemons with nothing of ours on it."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen()

    async def welcome(connection: trio.SocketStream) -> None:
        await ControlReader(connection).next_body()  # who it is; the dialler sends nothing before our OK is read
        await acknowledge(connection)

    nursery.start_soon(trio.serve_listeners, welcome, [trio.SocketListener(sock)])
    await two._client.handle(BARE_PROTOCOL, path)  # noqa: SLF001 - below the layers that are measured
    stream = await one._client._say(control.open_stream_request(two.peer_id, BARE_PROTOCOL, 15))  # noqa: SLF001
    control.check_reply(await ControlReader(stream).next_body())
    return stream


@dataclass
class Sample:
    """One case in one repeat."""

    per_message_s: list[float]
    cpu_s: float

    @property
    def total_s(self) -> float:
        """Return the time of all messages."""
        return sum(self.per_message_s)


async def sample(exchange: Exchange, size: int, num_messages: int) -> Sample:
    """Time some messages one after another."""
    times = []
    cpu_start_s = time.process_time()
    for _ in range(num_messages):
        start_s = time.perf_counter()
        await exchange(size)
        times.append(time.perf_counter() - start_s)
    return Sample(times, time.process_time() - cpu_start_s)


async def take_turns(ways: dict[str, Exchange], size: int, num_messages: int, repeats: int) -> dict[str, list[Sample]]:
    """Return each way's samples, interleaved, after a first message each that does not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for exchange in ways.values():
        await exchange(size)
    for _ in range(repeats):
        for name, exchange in ways.items():
            samples[name].append(await sample(exchange, size, num_messages))
    return samples


def ratio(samples: dict[str, list[Sample]], name: str, base: str) -> float:
    """Return the median of a way's speed over another's in the same repeat."""
    pairs = zip(samples[base], samples[name], strict=True)
    return statistics.median(theirs.total_s / ours.total_s for theirs, ours in pairs)


async def measure_streams(*, quick: bool) -> list[Row]:
    """Measure throughput, small requests, opening and many streams at once."""
    repeats = 3 if quick else 9
    async with open_ways() as (ways, host, streams, peer_id):
        rows = []
        for size in SIZES_BYTES:
            num_messages = max(2, (16 if quick else 64) * MIB // size // (1 if size > MIB else 4))
            samples = await take_turns(ways, size, num_messages, repeats)
            rows += _throughput_rows(samples, size, num_messages)
        rows += _latency_rows(await take_turns(ways, KIB, 100 if quick else 300, repeats))
        rows += await _opening_rows(host, peer_id, 30 if quick else 200)
        rows += await _concurrent_rows(streams, peer_id, 3 if quick else 10)
        return rows


def _throughput_rows(samples: dict[str, list[Sample]], size: int, num_messages: int) -> list[Row]:
    megabytes = size * num_messages / 1e6
    rows = []
    for name, taken in samples.items():
        speed = statistics.median(megabytes / one.total_s for one in taken)
        cpu_ms = statistics.median(1000 * one.cpu_s / megabytes for one in taken)
        of_bare, of_raw = ratio(samples, name, "bare"), ratio(samples, name, "raw")
        figure = f"{speed:,.0f} MB/s, {of_bare:.2f} of bare, {of_raw:.2f} of raw, CPU {cpu_ms:.2f} ms/MB"
        marked = size == SIZES_BYTES[-1] and name in {"host", "call"}
        reached = of_bare >= 0.9 and cpu_ms <= 2 if marked else None
        rows.append(
            Row(
                f"{size // KIB:,} KiB messages, {name}", figure, ">= 0.9 of bare, <= 2 ms/MB" if marked else "", reached
            )
        )
    return rows


def _latency_rows(samples: dict[str, list[Sample]]) -> list[Row]:
    rows = []
    for name, taken in samples.items():
        times_s = [duration_s for one in taken for duration_s in one.per_message_s]
        p50_ms, p99_ms = percentile_ms(times_s, 50), percentile_ms(times_s, 99)
        cpu_ms = statistics.median(1000 * one.cpu_s / len(one.per_message_s) for one in taken)
        rate = len(times_s) / sum(times_s)
        figure = f"p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, {rate:,.0f}/s, CPU {cpu_ms:.2f} ms"
        marked = name in {"host", "call"}
        rows.append(
            Row(f"1 KiB request, {name}", figure, "p50 < 0.5 ms" if marked else "", p50_ms < 0.5 if marked else None)
        )
    return rows


async def _opening_rows(host: DaemonHost, peer_id: PeerId, num_streams: int) -> list[Row]:
    """Time a new stream and 1 KiB there and back on it."""
    times_s = []
    for _ in range(num_streams):
        start_s = time.perf_counter()
        stream = (await host.open_stream(peer_id, HOST_PROTOCOL)).stream
        await Acknowledged(stream, bytes(KIB)).exchange(KIB)
        times_s.append(time.perf_counter() - start_s)
        await stream.aclose()
    figure = f"p50 {percentile_ms(times_s, 50):.2f} ms, p99 {percentile_ms(times_s, 99):.2f} ms"
    return [Row("new stream and 1 KiB round trip, host", figure)]


async def _concurrent_rows(streams: Streams, peer_id: PeerId, rounds: int) -> list[Row]:
    """Time calls of 100 tasks at once; a peer takes 32 at a time and refuses the rest, so each task waits its turn."""
    size, num_tasks, turns = MIB, 100, trio.Semaphore(32)
    payload = bytes(size)

    async def call() -> None:
        async with turns:
            await streams.call(peer_id, SPEC, Request({}, payload))

    start_s = time.perf_counter()
    for _ in range(rounds):
        async with trio.open_nursery() as nursery:
            for _ in range(num_tasks):
                nursery.start_soon(call)
    speed = rounds * num_tasks * size / 1e6 / (time.perf_counter() - start_s)
    return [Row("100 tasks calling with 1 MiB, 32 at a time", f"{speed:,.0f} MB/s")]
