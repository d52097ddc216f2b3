"""Peers as their users run them: `iota-p2p peer` in processes of their own, heard through `--json`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import trio

# Starting eight interpreters at once takes two cores half a minute when others keep them busy. What must be fast has
# a bound of its own in its test.
PATIENCE_S = 60
LISTEN = "/ip4/127.0.0.1/tcp/0"
COMMAND = (sys.executable, "-c", "from iota_p2p.cli.main import main; main()")  # what the console script does
Event = dict[str, Any]


@dataclass(slots=True)
class PeerProcess:
    """One running peer and everything it has said."""

    process: trio.Process
    home: Path
    events: list[Event] = field(default_factory=list)
    errors: bytearray = field(default_factory=bytearray)
    _heard: trio.Event = field(default_factory=trio.Event)

    async def listen(self) -> None:
        """Take down what it says until it ends."""
        assert self.process.stdout is not None
        rest = b""
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.events.extend(json.loads(line) for line in lines)
            self._heard.set()
            self._heard = trio.Event()
        await self.process.wait()
        self._heard.set()

    async def listen_to_errors(self) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.errors += data

    async def hears(self, condition: Callable[[Sequence[Event]], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait until what it has said satisfies a condition."""
        with trio.move_on_after(timeout_s):
            while not condition(self.events) and self.process.returncode is None:
                await self._heard.wait()
        if not condition(self.events):
            said = "\n".join(map(str, self.events[-20:]))
            raise AssertionError(f"not heard within {timeout_s} s; said:\n{said}\n{self.errors.decode()}")

    async def sees(self, num_live: int, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it believes in so many live peers, itself included."""
        await self.hears(lambda _: self.num_live == num_live, timeout_s)

    @property
    def num_live(self) -> int:
        return next((event["live"] for event in reversed(self.events) if event["event"] == "view"), 1)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def peer_id(self) -> str:
        return str(self.events[0]["peer_id"])

    @property
    def address(self) -> str:
        return next(str(event["address"]) for event in self.events if event["event"] == "address")

    def daemon_pid(self) -> int:
        """Its daemon's process id, which changes when it is restarted."""
        (child,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return int(child)

    async def stop(self, with_signal: int = signal.SIGINT, within_s: float = 3) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(with_signal)
        with trio.fail_after(within_s):
            return await self.process.wait()


class Swarm:
    """Peers that a test starts; open one with `open_swarm`."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self._nursery = nursery
        self.peers: list[PeerProcess] = []

    def environment(self) -> dict[str, str]:
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        ours = {"TMPDIR": str(temporary), "HOME": str(self.folder), "PYTHONPATH": os.pathsep.join(sys.path)}
        # torch makes this folder among the temporary files as soon as there is an optimizer, and leaves it there.
        return os.environ | ours | {"TORCHINDUCTOR_CACHE_DIR": str(self.folder / "torch")}

    async def start(
        self,
        name: str,
        *options: str,
        bootstrap: Iterable[str] = (),
        prefix: Sequence[str] = (),
        command: Sequence[str] = COMMAND,
    ) -> PeerProcess:
        """Start a peer, by way of a prefix command if given; return when it has told its address."""
        home = self.folder / name
        words = [*prefix, *command, "peer", "--json", "--home", str(home), *options]
        if "--listen" not in options:
            words += ["--listen", LISTEN]
        for address in bootstrap:
            words += ["--bootstrap", address]
        process = await trio.lowlevel.open_process(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment()
        )
        peer = PeerProcess(process, home)
        self.peers.append(peer)
        self._nursery.start_soon(peer.listen)
        self._nursery.start_soon(peer.listen_to_errors)
        await peer.hears(lambda events: any(event["event"] == "address" for event in events))
        return peer

    async def run(self, *arguments: str, prefix: Sequence[str] = ()) -> tuple[int, str, str]:
        """Run another verb to its end; return its exit status and what it wrote."""
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(
                [*prefix, *COMMAND, *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.environment(),
            )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    async def roll(self, address: str) -> set[str]:
        """Return the peer ids that `iota-p2p peers` lists."""
        status, output, errors = await self.run("peers", "--bootstrap", address, "--json")
        assert status == 0, errors
        return {row["peer_id"] for row in json.loads(output)["peers"]}

    async def end(self) -> None:
        """Stop what still runs."""
        running = [peer for peer in self.peers if peer.process.returncode is None]
        for peer in running:
            peer.process.terminate()
        with trio.move_on_after(PATIENCE_S):
            for peer in running:
                await peer.process.wait()
        for peer in running:
            if peer.process.returncode is None:
                peer.process.kill()
                await peer.process.wait()

    def daemons(self) -> list[int]:
        """Process ids of the daemons that have their control socket in our folder."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and str(self.folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it has just ended
        return found


@asynccontextmanager
async def open_swarm() -> AsyncGenerator[Swarm, None]:
    """A folder for peers; when the context ends none runs, and nothing but what a kill -9 leaves is left."""
    folder = Path(tempfile.mkdtemp(prefix="swarm-"))  # short: sockets live in it
    try:
        async with trio.open_nursery() as nursery:
            swarm = Swarm(folder, nursery)
            try:
                yield swarm
            finally:
                with trio.CancelScope(shield=True):
                    await swarm.end()
                nursery.cancel_scope.cancel()
        num_killed = sum(peer.process.returncode == -signal.SIGKILL for peer in swarm.peers)
        with trio.move_on_after(10):
            while swarm.daemons():  # noqa: ASYNC110 - another process sends us no event
                await trio.sleep(0.02)
        assert swarm.daemons() == []
        # Those of the killed wait for the next start of any peer, which sweeps them away.
        assert len(list((folder / "tmp").iterdir())) <= num_killed
    finally:
        rmtree(folder)
