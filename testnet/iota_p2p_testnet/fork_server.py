"""Peers as processes that are forked from one that has torch imported already, and that cannot outlive the testnet.

The server is Python's own (`multiprocessing`, start method "forkserver"). It is told what to preload, forks, and
passes on exit codes. A peer leaves when the pipe whose other end only the testnet's process has closes: that
happens however that process ends, and works on every system. The server leaves when its last peer has.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import trio

# A peer whose launcher is gone leaves in good order within a second; the system ends it after this.
_LEAVE_S = 5
_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True, slots=True)
class PeerStart:
    """What one life of a peer is given, as its user would.

    Attributes:
        bootstrap: addresses of peers to join through.
        run_file: the run, for the first peer only; the others are told by whom they join.
        log: where its errors go.
        scratch: folder of its sockets, which a peer that is killed cannot remove itself.
    """

    home: Path
    bootstrap: Sequence[str]
    run_file: Path | None
    log: Path
    scratch: Path


def start_fork_server() -> None:
    """Start the server and return at once, while it imports; call this in the main thread, before trio runs."""
    _CONTEXT.set_forkserver_preload(["iota_p2p_testnet.preload"])
    # Ctrl-C is for the launcher, which stops the peers itself. What is ignored here stays so in the server.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)


def peer_process(start: PeerStart, events: Connection) -> ForkServerProcess:
    """Return a process, not started, that lives as this peer and writes its events to a pipe."""
    return _CONTEXT.Process(target=_live_as_peer, args=(start, events), daemon=True)


def _live_as_peer(start: PeerStart, events: Connection) -> None:
    os.setsid()  # out of the terminal's reach
    with start.log.open("ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.dup2(events.fileno(), sys.stdout.fileno())
    events.close()
    tempfile.tempdir = str(start.scratch)
    trio.run(_run_while_launched, start)


async def _run_while_launched(start: PeerStart) -> None:
    # Imports torch, which the server has done for us and the launcher has no use for.
    from iota_p2p.peer_process import PeerOptions, run_peer  # noqa: PLC0415 - see above

    options = PeerOptions(
        home=start.home,
        bootstrap=start.bootstrap,
        listen=("/ip4/127.0.0.1/tcp/0",),
        announce=(),
        relay=False,
        passphrase_file=None,
        binary=None,
        as_json=True,
        run_file=start.run_file,
        run_id=None,
        threads=1,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_leave_with_launcher, nursery.cancel_scope)
        await run_peer(options)
        nursery.cancel_scope.cancel()


async def _leave_with_launcher(scope: trio.CancelScope) -> None:
    launcher = multiprocessing.parent_process()
    assert launcher is not None  # noqa: S101 - we are a child
    await trio.lowlevel.wait_readable(launcher.sentinel)  # never written to: it only ends
    signal.alarm(_LEAVE_S)
    scope.cancel()
