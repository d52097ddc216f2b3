"""Training over a network: real peers with real daemons, and where their processor time goes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iota_p2p.run import corpus
from iota_p2p.run.configs import find_config
from iota_p2p.run.founding import found_run
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.tokens import ByteTokenizer

COMMAND = (sys.executable, "-c", "from iota_p2p.cli.main import main; main()", "peer", "--json", "--threads", "1")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 120.0
SETTLE_S = 10.0  # after the last peer has its stage: weights are advertised, timeouts learnt


@dataclass(frozen=True)
class Usage:
    """What the peers did up to some moment, or between two.

    Attributes:
        compute_s: processor time of threads that compute.
        training_s: of that, forward and backward passes with their steps; what replays need is noted in the steps.
        evaluating_s: of that, held-out text, freezing and saving states.
        beside_s: of that, what the lane does not wait for: merges' arithmetic, digests of work done, files.
        loop_s: of main threads: trio, streams, packing, signing, checking.
        daemons_s: of the daemons.
        lane_s: time that lanes were busy, by the clock.
        merging_s: time that stages were closed to work while their replicas merged, by the clock.
        completed: microbatches that came home.
        tokens: in them.
        payload_bytes: activations and gradients sent.
        control_bytes: headers and gossip sent.
        at_s: when.
    """

    compute_s: float
    training_s: float
    evaluating_s: float
    beside_s: float
    loop_s: float
    daemons_s: float
    lane_s: float
    merging_s: float
    completed: int
    tokens: int
    payload_bytes: int
    control_bytes: int
    at_s: float

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) - getattr(other, name) for name in Usage.__dataclass_fields__))


@dataclass
class Peer:
    """A peer's process and what it says."""

    process: subprocess.Popen[bytes]
    began_s: float = field(default_factory=time.monotonic)
    status: dict[str, Any] = field(default_factory=dict)
    heard_s: dict[str, float] = field(default_factory=dict)  # after its start, when each kind of event came first
    address: str = ""

    def listen(self) -> None:
        """Take down what it says until it ends."""
        assert self.process.stdout is not None  # noqa: S101 - a pipe
        for line in self.process.stdout:
            event = json.loads(line)
            now_s = time.monotonic() - self.began_s
            self.heard_s.setdefault(event["event"], now_s)
            if event["event"] == "address" and not self.address:
                self.address = event["address"]
            if event["event"] == "status":
                self.status = event

    @property
    def stages(self) -> list[int]:
        """The stages it serves."""
        return [row["stage"] for row in self.status.get("stages", ()) if row["serving"]]


@contextmanager
def testnet(count: int) -> Iterator[list[Peer]]:
    """Run peers on the tiny run until each serves a stage and the network has settled."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        store = ShardStore(folder / "0" / "shards")
        spec = found_run(load_plan(find_config("tiny")), corpus.standard_library(), ByteTokenizer(), store, seed=0)
        (folder / "run.spec").write_bytes(spec.to_bytes())
        peers = [stack.enter_context(running_peer(folder / "0", "--run", str(folder / "run.spec")))]
        wait_until(lambda: bool(peers[0].address), "the first peer's address")
        for number in range(1, count):
            peers.append(stack.enter_context(running_peer(folder / str(number), "--bootstrap", peers[0].address)))
        stages = set(range(spec.model.num_stages))
        wait_until(
            lambda: all(peer.stages for peer in peers) and {s for peer in peers for s in peer.stages} == stages,
            "all peers to serve a stage",
        )
        time.sleep(SETTLE_S)
        yield peers


@contextmanager
def running_peer(home: Path, *options: str) -> Iterator[Peer]:
    """Run one peer; it is stopped at the end, and killed if it does not stop."""
    command = [*COMMAND, "--home", str(home), "--listen", "/ip4/127.0.0.1/tcp/0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    peer = Peer(process)
    threading.Thread(target=peer.listen, daemon=True).start()
    try:
        yield peer
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition; leaves with an error if it does not come true in time."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            sys.exit(f"waited {patience_s:.0f} s for {what} in vain")
        time.sleep(0.05)


def usage_of(peers: list[Peer]) -> Usage:
    """Return what peers did so far: processor time from /proc, the rest from what they said in the last second."""
    main_s = process_s = daemons_s = 0.0
    for peer in peers:
        pid = peer.process.pid
        main_s += _cpu_s(Path(f"/proc/{pid}/task/{pid}/stat"))
        process_s += _cpu_s(Path(f"/proc/{pid}/stat"))
        daemons_s += _daemon_s(pid)
    said = [peer.status for peer in peers]

    def lanes_s(*what: str) -> float:
        return float(sum(status["lane_cpu_s"].get(one, 0.0) for status in said for one in what))

    return Usage(
        compute_s=process_s - main_s,
        training_s=lanes_s("forward", "backward"),
        evaluating_s=lanes_s("background"),
        beside_s=lanes_s("beside"),
        loop_s=main_s,
        daemons_s=daemons_s,
        lane_s=sum(status["lane_busy_s"] for status in said),
        merging_s=sum(status["merging_s"] for status in said),
        completed=sum(status["microbatches"]["completed"] for status in said),
        tokens=sum(status["tokens"] for status in said),
        payload_bytes=sum(status["bytes"]["activations"] + status["bytes"]["gradients"] for status in said),
        control_bytes=sum(status["bytes"]["control"] for status in said),
        at_s=time.monotonic(),
    )


def cpu_s(peer: Peer) -> float:
    """Return the processor time of a peer and its daemon so far."""
    pid = peer.process.pid
    return _cpu_s(Path(f"/proc/{pid}/stat")) + _daemon_s(pid)


def _daemon_s(pid: int) -> float:
    """Return the processor time of a peer's daemon so far."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return sum(_cpu_s(Path(f"/proc/{child}/stat")) for child in children)


def memory_mb(peers: list[Peer]) -> dict[str, float]:
    """Return what a peer and its daemon hold now in megabytes, the largest of each; shared pages count in part."""
    largest = {"peer_memory_mb": 0.0, "daemon_memory_mb": 0.0}
    for peer in peers:
        pid = peer.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for name, processes in (("peer_memory_mb", [str(pid)]), ("daemon_memory_mb", children)):
            largest[name] = max(largest[name], *map(_memory_mb, processes))
    return largest


def _memory_mb(pid: str) -> float:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1000


def _cpu_s(stat: Path) -> float:
    words = stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / CLOCK_TICKS
