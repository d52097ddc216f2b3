"""Swarms of the network benchmark: gossip, rendezvous, memory, idle CPU, start (see `bench/network.py`)."""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from bench.network_rows import LISTEN, Row, identity, percentile_ms
from iota_p2p.network.daemon import DaemonHost, open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.peer import Peer, PeerConfig, open_peer
from iota_p2p_crypto.errors import PeerUnavailableError

TOPIC = "bench/gossip"
GOSSIP_PER_S = 50
_FIND_POLL_S = 0.05


@asynccontextmanager
async def open_peers(num_peers: int) -> AsyncIterator[list[Peer]]:
    """Run so many peers, each with its own daemon, joined through the first; ready when all see all."""
    peers: list[Peer] = []

    async def run(
        number: int, bootstrap: Sequence[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        config = DaemonConfig(listen=(LISTEN,), bootstrap=bootstrap)
        me = identity(1000 + number)
        async with (
            open_daemon_host(me, config) as host,
            open_peer(me, host, PeerConfig(bootstrap=bootstrap)) as peer,
        ):
            peers.append(peer)
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(run, 0, ())
        first = await peers[0].network.host.addresses()
        async with trio.open_nursery() as starting:
            for number in range(1, num_peers):
                starting.start_soon(nursery.start, run, number, first)
        for peer in peers:
            while len(peer.view.live()) < num_peers:
                await peer.view_changed()
        yield peers
        nursery.cancel_scope.cancel()


async def measure_swarm(num_peers: int, *, quick: bool) -> list[Row]:
    """Measure start, gossip, rendezvous, memory and idle CPU of so many peers."""
    name = f"{num_peers} peers"
    start_s = time.perf_counter()
    async with open_peers(num_peers) as peers:
        rows = [Row(f"{name}: all see all", f"{time.perf_counter() - start_s:.1f} s after the first start")]
        rows.append(await _gossip_row(name, peers, 3 if quick else 10))
        rows.append(await _rendezvous_row(name, peers))
        rows += await _idle_rows(name, peers, 5 if quick else 20)
        return rows


async def _gossip_row(name: str, peers: Sequence[Peer], duration_s: float) -> Row:
    """Publish from everybody in turn and time every delivery; the mesh has been forming since the start."""
    latencies_s: list[float] = []
    num_messages = int(GOSSIP_PER_S * duration_s)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)

        async def hear(peer: Peer, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with peer.network.host.subscribe(TOPIC) as messages:
                task_status.started()
                async for message in messages:
                    latencies_s.append(time.perf_counter() - float(message.data))  # noqa: PERF401 - until cancelled

        for peer in peers:
            await nursery.start(hear, peer)
        await trio.sleep(3)  # GossipSub's heartbeat, which builds its mesh, is a second
        next_s = trio.current_time()
        for index in range(num_messages):
            await trio.sleep_until(next_s)
            next_s += 1 / GOSSIP_PER_S
            await peers[index % len(peers)].network.host.publish(TOPIC, repr(time.perf_counter()).encode())
        await trio.sleep(2)
        expected = num_messages * (len(peers) - 1)
        delivered = len(latencies_s) / expected
        p99_ms = percentile_ms(latencies_s, 99)
    figure = f"{100 * delivered:.2f} % of {expected}, p50 {percentile_ms(latencies_s, 50):.0f} ms, p99 {p99_ms:.0f} ms"
    return Row(f"{name}: gossip, {GOSSIP_PER_S}/s", figure, "100 %, p99 < 100 ms", delivered == 1 and p99_ms < 100)


async def _rendezvous_row(name: str, peers: Sequence[Peer]) -> Row:
    """Let one peer be found by all; the time of the last to find it."""
    purpose, finished_s = "bench", []
    start_s = time.perf_counter()

    async def find(peer: Peer) -> None:
        while True:
            try:
                if await peer.network.rendezvous.find(purpose, 1, limit=4):
                    break
            except PeerUnavailableError:
                pass
            await trio.sleep(_FIND_POLL_S)
        finished_s.append(time.perf_counter() - start_s)

    with trio.move_on_after(30):
        async with peers[1].network.rendezvous.provided(purpose, 1), trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(find, peer)
    if len(finished_s) < len(peers):
        return Row(f"{name}: rendezvous", f"found by {len(finished_s)} within 30 s", "all < 2 s", reached=False)
    figure = f"found by all {finished_s[-1]:.2f} s after being provided, by half in {finished_s[len(peers) // 2]:.2f} s"
    return Row(f"{name}: rendezvous", figure, "all < 2 s", finished_s[-1] < 2)


async def _idle_rows(name: str, peers: Sequence[Peer], duration_s: float) -> list[Row]:
    pids = [peer.network.host.daemon_pid for peer in peers if isinstance(peer.network.host, DaemonHost)]
    daemons = [pid for pid in pids if pid is not None]
    before_s, own_before_s = sum(map(cpu_s, daemons)), time.process_time()
    await trio.sleep(duration_s)
    scale = 100 / duration_s / len(peers)
    daemon_percent = scale * (sum(map(cpu_s, daemons)) - before_s)
    own_percent = scale * (time.process_time() - own_before_s)
    memory_mb = statistics.median(memory_bytes(pid) / 1e6 for pid in daemons)
    figure = f"daemon {daemon_percent:.2f} %, Python {own_percent:.2f} % of a core"
    return [
        Row(f"{name}: idle CPU per peer", figure, "< 1 % together", daemon_percent + own_percent < 1),
        Row(f"{name}: memory per daemon", f"{memory_mb:.0f} MB resident (median)"),
    ]


def cpu_s(pid: int) -> float:
    """Return the CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure_process() -> list[Row]:
    """Measure one peer as users start it: until it tells its address, and its memory then."""
    command = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", "peer", "--json", "--listen", LISTEN]
    with tempfile.TemporaryDirectory() as home:
        start_s = time.perf_counter()
        peer = subprocess.Popen([*command, "--home", home], stdout=subprocess.PIPE)
        assert peer.stdout is not None  # noqa: S101 - for the type checker
        with peer.stdout:
            for line in peer.stdout:
                if json.loads(line)["event"] == "address":
                    break
            started_s = time.perf_counter() - start_s
            memory_mb = memory_bytes(peer.pid) / 1e6
            peer.send_signal(signal.SIGINT)
            peer.stdout.read()
        peer.wait()
    return [Row("one peer process", f"ready in {started_s:.2f} s, Python {memory_mb:.0f} MB resident, without torch")]
