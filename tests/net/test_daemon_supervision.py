"""What happens when a daemon, or the peer that owns it, dies."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from iota_p2p.network.daemon import DaemonHost, open_daemon_host
from iota_p2p.network.daemon_binary import find_daemon
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.daemon_neighbours import _MIN_LOOK_S
from iota_p2p.network.daemon_runs import BEAT_TIMEOUT_S, HEARTBEAT_S, MAX_MISSED_BEATS
from iota_p2p.network.host import Host, HostStream
from iota_p2p_crypto.errors import PeerUnavailableError, UserError
from tests.net.daemons import ECHO, LOOPBACK, echo, identity, open_hosts

pytestmark = pytest.mark.net

# A peer that says the daemon's process id and then does nothing for ever.
PEER_PROGRAM = """
import sys, trio
sys.path[:0] = sys.argv[1:]
from iota_p2p.network.daemon import open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p_crypto.identity import Identity

async def main():
    config = DaemonConfig(listen=("/ip4/127.0.0.1/tcp/0",))
    async with open_daemon_host(Identity.from_seed(bytes(32)), config) as host:
        print(host.daemon_pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")


def entries(folder: str) -> list[Path]:
    return list(Path(folder).iterdir())


def kill_daemon(host: DaemonHost) -> None:
    assert host.daemon_pid is not None
    os.kill(host.daemon_pid, signal.SIGKILL)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again: what we wait for happens in another process, which sends us no event."""
    while not condition():  # noqa: ASYNC110 - see above
        await trio.sleep(0.01)


async def wait_connected(one: Host, two: Host) -> None:
    """Without dialling."""
    while True:
        with suppress(PeerUnavailableError):
            if any(connection.peer_id == two.peer_id for connection in await one.connections()):
                return
        await trio.sleep(0.02)


async def call(host: DaemonHost, target: DaemonHost) -> None:
    outbound = await host.open_stream(target.peer_id, ECHO)
    async with outbound.stream:
        await outbound.stream.send_all(b"ping")
        assert await outbound.stream.receive_some() == b"ping"


async def call_again(host: DaemonHost, target: DaemonHost) -> None:
    """Call until it is answered: who was called back learns of it a moment later, and may not dial before."""
    while True:
        with suppress(PeerUnavailableError):
            await call(host, target)
            return
        await trio.sleep(0.02)


async def test_killed_daemon__is_whole_again_within_five_seconds() -> None:
    """Same identity and address, handlers served, neighbours connected, subscriptions heard."""
    async with open_hosts(2) as (one, two), one.subscribe("topic") as inbox:
        await one.handle(ECHO, echo)
        await call(two, one)
        addresses, old_pid = await one.addresses(), one.daemon_pid
        await two.connect(addresses[0])
        await one.connect((await two.addresses())[0])
        kill_daemon(one)
        with trio.fail_after(5):
            await wait_until(lambda: one.daemon_pid not in {old_pid, None})
            await wait_connected(one, two)
            await call_again(two, one)
            async with trio.open_nursery() as nursery:

                async def repeat() -> None:
                    while True:  # until GossipSub has built its mesh anew
                        await two.publish("topic", b"welcome back")
                        await trio.sleep(0.2)

                nursery.start_soon(repeat)
                assert (await anext(inbox)).data == b"welcome back"
                nursery.cancel_scope.cancel()
        assert await one.addresses() == addresses


async def test_killed_daemon__dials_its_neighbours_again() -> None:
    """By itself: neither end has bootstrap peers."""
    with trio.fail_after(10):
        async with open_daemon_host(identity(1), LOOPBACK) as one, open_daemon_host(identity(2), LOOPBACK) as two:
            await one.connect((await two.addresses())[0])
            old_pid = one.daemon_pid
            kill_daemon(one)
            await wait_until(lambda: one.daemon_pid not in {old_pid, None})
            with trio.fail_after(5):
                await wait_connected(one, two)


async def test_killed_daemon__dials_those_who_had_only_just_called() -> None:
    """They cannot come back by themselves for 5 s, after dialling it in vain."""
    with trio.fail_after(30):
        async with open_daemon_host(identity(1), LOOPBACK) as one, open_daemon_host(identity(2), LOOPBACK) as two:
            await one.handle(ECHO, echo)
            address = (await one.addresses())[0]
            await two.connect(address)
            await call(two, one)
            await trio.sleep(2 * _MIN_LOOK_S)
            run = await one.settled()
            kill_daemon(one)
            await dial_in_vain(two, address)
            with trio.fail_after(4):
                await wait_connected(two, one)
                assert await one.settled() == run + 1


async def dial_in_vain(host: Host, address: str) -> None:
    """Dial somebody who has just died; at first the connection may still look open."""
    with suppress(PeerUnavailableError), trio.fail_after(1):
        while True:
            await host.connect(address)


async def test_killed_daemon__breaks_streams_and_requests_instead_of_hanging() -> None:
    async def wait(_: HostStream) -> None:
        await trio.sleep_forever()

    async with open_hosts(2) as (one, two):
        await two.handle(ECHO, wait)
        outbound = await one.open_stream(two.peer_id, ECHO)
        async with outbound.stream:
            kill_daemon(one)
            with trio.fail_after(1), pytest.raises(trio.BrokenResourceError):
                await outbound.stream.receive_some()
        with trio.fail_after(1), pytest.raises(PeerUnavailableError):
            await one.open_stream(two.peer_id, ECHO)


async def test_killed_daemon__breaks_the_streams_of_the_other_end() -> None:
    broken = trio.Event()

    async def wait(inbound: HostStream) -> None:
        try:
            await inbound.stream.send_all(await inbound.stream.receive_some())
            await inbound.stream.receive_some()
        except trio.BrokenResourceError:
            broken.set()

    async with open_hosts(2) as (one, two):
        await two.handle(ECHO, wait)
        outbound = await one.open_stream(two.peer_id, ECHO)
        async with outbound.stream:
            await outbound.stream.send_all(b"libp2p tells the other end of a stream with its first byte")
            await outbound.stream.receive_some()
            kill_daemon(one)
            with trio.fail_after(5):
                await broken.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_stopped_daemon__noticed_killed_and_whole_again() -> None:
    """It has not died: its socket still takes requests, which nobody will answer."""
    async with open_hosts(2) as (one, two):
        await one.handle(ECHO, echo)
        await call(two, one)
        old_pid = one.daemon_pid
        assert old_pid is not None
        os.kill(old_pid, signal.SIGSTOP)
        await wait_until(lambda: "\nState:\tT" in Path(f"/proc/{old_pid}/status").read_text(encoding="ascii"))
        with trio.fail_after(MAX_MISSED_BEATS * (HEARTBEAT_S + BEAT_TIMEOUT_S) + 5):
            with pytest.raises(PeerUnavailableError):  # a request under way ends with an error
                await one.connections()
            await wait_until(lambda: one.daemon_pid not in {old_pid, None})
            await wait_connected(one, two)
            await call(two, one)
        assert not alive(old_pid)


async def test_daemon_that_keeps_dying__user_error_with_its_last_words(tmp_path: Path) -> None:
    """A daemon that runs at first and later cannot start any more."""
    binary = tmp_path / "p2pd"
    binary.symlink_to(find_daemon())
    config = DaemonConfig(listen=LOOPBACK.listen, binary=binary)

    async def run_until_it_gives_up() -> None:
        async with open_daemon_host(identity(1), config) as host:
            binary.unlink()
            binary.write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 3\n", encoding="ascii")
            binary.chmod(0o700)
            kill_daemon(host)
            await trio.sleep_forever()

    with trio.fail_after(10), pytest.raises(BaseExceptionGroup) as caught:
        await run_until_it_gives_up()
    group = caught.value.subgroup(UserError)
    assert group is not None
    assert "exit status 3; last lines:\nout of luck" in str(group.exceptions[0])


async def test_daemon_that_does_not_start__user_error_with_its_last_words(tmp_path: Path) -> None:
    binary = tmp_path / "p2pd"
    binary.write_text("#!/bin/sh\nprintf 'wrong machine' >&2\nexit 3\n", encoding="ascii")
    binary.chmod(0o700)
    with trio.fail_after(5), pytest.raises(UserError, match="wrong machine"):
        async with open_daemon_host(identity(1), DaemonConfig(binary=binary)):
            pass


async def test_closing__leaves_no_process_and_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as ours, trio.fail_after(10):  # where nobody else's daemons come and go
        monkeypatch.setattr(tempfile, "tempdir", ours)
        async with open_daemon_host(identity(1), LOOPBACK) as host:
            pid = host.daemon_pid
            (folder,) = entries(ours)
            assert folder.stat().st_mode & 0o777 == 0o700
            assert {path.name for path in folder.iterdir()} == {"control", "in"}
        assert entries(ours) == []
    assert pid is not None
    assert not alive(pid)


async def test_closing__kills_a_daemon_that_does_not_react() -> None:
    with trio.fail_after(30) as patience:  # for the start
        async with open_daemon_host(identity(1), LOOPBACK) as host:
            pid = host.daemon_pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            patience.deadline = trio.current_time() + 3
    assert not alive(pid)


@pytest.mark.parametrize("daemon_stopped", [False, True])
async def test_killed_peer__leaves_no_daemon(tmp_path: Path, daemon_stopped: bool) -> None:  # noqa: FBT001
    """Not even when it is killed with -9, nor one that can no longer notice by itself."""
    if daemon_stopped and sys.platform != "linux":
        pytest.skip("only Linux has a parent-death signal")
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # its folder stays behind there
    peer = subprocess.Popen(  # noqa: ASYNC220 - starting it blocks no longer than a daemon does
        [sys.executable, "-c", PEER_PROGRAM, *sys.path], stdout=subprocess.PIPE, env=environment
    )
    try:
        assert peer.stdout is not None
        with peer.stdout:
            daemon_pid = int(await trio.to_thread.run_sync(peer.stdout.readline))
        assert alive(daemon_pid)
        if daemon_stopped:
            os.kill(daemon_pid, signal.SIGSTOP)
    finally:
        peer.kill()
        peer.wait()
    with trio.fail_after(3):
        await wait_until(lambda: not alive(daemon_pid))


def num_open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def daemon_memory_kib(host: DaemonHost) -> int:
    status = Path(f"/proc/{host.daemon_pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.slow
async def test_streams_and_connections__leak_nothing() -> None:
    """200 connections and 1,000 streams, some of them reset, some left unread."""
    async with open_hosts(2, limit_s=300) as (one, two):  # takes 5 s on a machine with time to spare
        await two.handle(ECHO, echo)
        address = (await two.addresses())[0]

        async def churn(num_streams: int, num_connections: int) -> None:
            for index in range(num_streams):
                outbound = await one.open_stream(two.peer_id, ECHO)
                async with outbound.stream:
                    await outbound.stream.send_all(bytes(1000))
                    if index % 3:
                        await outbound.stream.send_eof()
                    if index % 2:
                        await outbound.stream.receive_some()
            for _ in range(num_connections):
                await one.disconnect(two.peer_id)
                await one.connect(address)
            await wait_until(lambda: not two._inbound._num_streams)

        await churn(100, 20)
        before = num_open_files(), trio.lowlevel.current_statistics().tasks_living
        memory_kib = daemon_memory_kib(two)
        await churn(1000, 200)
        assert (num_open_files(), trio.lowlevel.current_statistics().tasks_living) == before
        assert daemon_memory_kib(two) < memory_kib + 40_000  # Go gives memory back late
        assert not two._inbound._num_of_peer
