"""One peer of a local network, from the outside: its process, what it says, and how it is killed and started again."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from multiprocessing import Pipe
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import trio

from iota_p2p_testnet.events import MAX_LINE_BYTES, PeerEvent, Status, parse_event
from iota_p2p_testnet.fork_server import PeerStart, peer_process

LOG_NAME = "peer.log"
_READ_BYTES = 64 * 1024
_LAST_WORDS_BYTES = 1000


class LocalPeer:
    """A peer's process, one life after the other."""

    def __init__(
        self, home: Path, scratch: Path, memory_mib: int, hear: Callable[[PeerEvent], None], adversary: str = ""
    ) -> None:
        """`hear` is called with everything the peer says; see `PeerStart` for the others."""
        self.home = home
        self._scratch = scratch
        self._memory_mib = memory_mib
        self._hear = hear
        self._adversary = adversary
        self._process: ForkServerProcess | None = None

    @property
    def log(self) -> Path:
        """Where its errors and what it says go, except the status of every second."""
        return self.home / LOG_NAME

    async def live(self, bootstrap: Sequence[str], run_file: Path | None) -> int:
        """Run one life to its end and return how it ended: an exit code, or minus the signal's number."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        start = PeerStart(self.home, bootstrap, run_file, self.log, self._scratch, self._memory_mib, self._adversary)
        async with self._started(start) as (process, output):
            await self._listen(output)
            await trio.lowlevel.wait_readable(process.sentinel)
            process.join()
            return process.exitcode or 0

    def last_words(self) -> str:
        """Return the last line of its log: why it ended, if it ended in error."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "nothing was said")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to leave in good order."""
        self._signal(signal.SIGTERM)

    @asynccontextmanager
    async def _started(self, start: PeerStart) -> AsyncIterator[tuple[ForkServerProcess, trio.abc.ReceiveStream]]:
        reader, writer = Pipe(duplex=False)
        with reader, writer:
            process = peer_process(start, writer)
            # Blocks until the server has imported everything; given up, it is the server's to forget with us.
            await trio.to_thread.run_sync(process.start, abandon_on_cancel=True)
            writer.close()
            async with trio.lowlevel.FdStream(os.dup(reader.fileno())) as output:
                self._process = process
                try:
                    yield process, output
                finally:
                    self.kill()
                    self._process = None

    async def _listen(self, output: trio.abc.ReceiveStream) -> None:
        """Pass on what it says until it is dead: the system closes its output then."""
        partial = b""
        with self.log.open("ab", buffering=0) as log:
            while data := await output.receive_some(_READ_BYTES):
                *lines, partial = (partial + data).split(b"\n")
                partial = partial[:MAX_LINE_BYTES]
                for line in lines:
                    event = parse_event(line)
                    if not isinstance(event, Status):
                        log.write(line + b"\n")
                    self._hear(event)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.pid is not None and process.exitcode is None:
            os.kill(process.pid, number)
