"""One run of the daemon's process: started so that it cannot outlive us, watched, and stopped.

Two things end it when we die, whatever kills us:
- `-idleTimeout` and a persistent control connection that we hold (see `control.hold_request`): the system closes
  it when our last process that has it open is gone. Works everywhere, but a child forked from us has it open too.
- On Linux, a parent-death signal. It is tied to the *thread* that starts the daemon, so the start happens in the
  calling thread, which must be the one that runs trio, never in a worker thread (where `trio.open_process` would
  do it). A small launcher sets it and then becomes the daemon: setting it between fork and exec in our own
  interpreter (`preexec_fn`) is unsafe once torch has threads. The launcher costs some 15 ms and no memory.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import trio

# prctl(PR_SET_PDEATHSIG=1, SIGKILL=9); if the parent died before that, it is no longer our parent.
_LAUNCHER = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(9), 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
# The daemon leaves within milliseconds of a SIGTERM; one that does not is stuck.
_TERMINATE_S = 1.0
_REAP_POLL_S = 0.002
# Enough for an error with its cause; a Go panic's goroutine dump would otherwise be kept whole.
_KEPT_LINES = 20
_KEPT_LINE_BYTES = 500


class DaemonProcess:
    """A started daemon. Its standard error is what tells of its death: that pipe ends when the process does."""

    def __init__(self, binary: Path, flags: Sequence[str]) -> None:
        """Start it; call this in the thread that runs trio."""
        command = [str(binary), *flags]
        if sys.platform == "linux" and sys.executable:
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        self._popen = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; we stop the daemon when we are done with it
            bufsize=0,
        )
        assert self._popen.stderr is not None  # noqa: S101 - for the type checker
        self._stderr = trio.lowlevel.FdStream(os.dup(self._popen.stderr.fileno()))
        self._popen.stderr.close()
        self._lines: deque[bytes] = deque(maxlen=_KEPT_LINES)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None

    def last_words(self) -> str:
        """Return the last lines it wrote to standard error, and how it ended."""
        text = b"\n".join(self._lines).decode(errors="replace")
        return f"exit status {self._popen.poll()}; last lines:\n{text}"

    async def wait_dead(self) -> None:
        """Return when it has ended. One task at a time."""
        partial = b""
        while data := await self._stderr.receive_some():
            *lines, partial = (partial + data).split(b"\n")
            partial = partial[:_KEPT_LINE_BYTES]
            self._lines.extend(line[:_KEPT_LINE_BYTES] for line in lines)
        if partial:
            self._lines.append(partial)
        await self._reap()

    def kill(self) -> None:
        """End it at once, even if it is stopped; `wait_dead` then returns."""
        self._popen.kill()

    async def _reap(self) -> None:
        """Wait out the moment between the closing of its files and its end; there is no event for that."""
        while not self.dead:  # noqa: ASYNC110 - see above
            await trio.sleep(_REAP_POLL_S)

    async def stop(self) -> None:
        """End it, politely first, and reap it; not cancellable, takes at most a second or so."""
        with trio.CancelScope(shield=True):
            self._popen.terminate()
            with trio.move_on_after(_TERMINATE_S):
                await self.wait_dead()
            self._popen.kill()
            await self._reap()
            await self._stderr.aclose()
