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
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

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
        memory_mib: what it gives to the run.
        adversary: how it cheats (`adversary_plan.NAMES`); empty for an honest peer.
    """

    home: Path
    bootstrap: Sequence[str]
    run_file: Path | None
    log: Path
    scratch: Path
    memory_mib: int
    adversary: str = ""


def start_fork_server() -> None:
    """Start the server and return at once, while it imports; call this in the main thread, before trio runs."""
    _CONTEXT.set_forkserver_preload(["iota_p2p_testnet.preload"])
    # Ctrl-C is for the launcher, which stops the peers itself, and which must not miss one meanwhile: it is kept, not
    # ignored. What is blocked here stays so in the server.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def peer_process(start: PeerStart, events: Connection) -> ForkServerProcess:
    """Return a process, not started, that lives as this peer and writes its events to a pipe."""
    return _CONTEXT.Process(target=_live_as_peer, args=(start, events), daemon=True)


def _live_as_peer(start: PeerStart, events: Connection) -> None:
    # Imports torch in the end, which the server has done for us and the launcher has no use for.
    from iota_p2p.cli.main import main  # noqa: PLC0415 - see above

    os.setsid()  # out of the terminal's reach
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with start.log.open("ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.dup2(events.fileno(), sys.stdout.fileno())
    events.close()
    tempfile.tempdir = str(start.scratch)
    threading.Thread(target=_leave_with_launcher, daemon=True).start()
    sys.argv = command_line(start)
    if start.adversary:
        _turn_bad(start.adversary)
    main()


def _turn_bad(adversary: str) -> None:
    """Change one part of the peer that this process is about to be."""
    from iota_p2p.training_process import TrainingProcess  # noqa: PLC0415 - imports torch, as above
    from iota_p2p_testnet.merge_adversaries import merge_twist  # noqa: PLC0415 - the same
    from iota_p2p_testnet.validator_adversaries import VALIDATOR_KINDS  # noqa: PLC0415 - the same
    from iota_p2p_testnet.work_adversaries import WORK_KINDS, work_twist  # noqa: PLC0415 - the same

    if adversary in VALIDATOR_KINDS:
        TrainingProcess.validator = VALIDATOR_KINDS[adversary]
        return
    twist = work_twist(adversary) if adversary in WORK_KINDS else merge_twist(adversary)
    TrainingProcess.twist = staticmethod(twist)


def command_line(start: PeerStart) -> list[str]:
    """Return what a user would type to run this peer."""
    words = [
        "iota-p2p",
        "peer",
        "--json",
        "--home",
        str(start.home),
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--threads",
        "1",
        "--memory",
        str(start.memory_mib),
        "--validate",
    ]
    for address in start.bootstrap:
        words += ["--bootstrap", address]
    if start.run_file is not None:
        words += ["--run", str(start.run_file)]
    return words


def _leave_with_launcher() -> None:
    launcher = multiprocessing.parent_process()
    assert launcher is not None  # noqa: S101 - we are a child
    launcher.join()  # until its end of a pipe closes
    signal.alarm(_LEAVE_S)
    os.kill(os.getpid(), signal.SIGTERM)
