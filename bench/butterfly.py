"""How long a merge takes, against gloo's all-reduce and hivemind's averager: members are processes, over real daemons.

    python -m bench.butterfly --megabytes 10 --members 2 4 8
    python -m bench.butterfly --megabytes 100 --members 8 --ways gloo ours:float32 ours:int8 hivemind:none
    python -m bench.butterfly --megabytes 10 --members 4 --ways ours:float32 --kill

A round is all of it: encoding, hashing, agreeing on a roster, reducing every shard twice, comparing, gathering; of
hivemind, matchmaking and all-reduce. Its time is the slowest member's. Sizes are those of the vector in float32.
With --kill one member is killed in the middle of a round, and the survivors' time counts.
"""

import argparse
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

WAYS = ("gloo", "ours:float32", "ours:bfloat16", "ours:int8", "ours:top-k", "hivemind:none", "hivemind:float16")
START_S = 120.0
ROUND_S = 240.0


@dataclass
class Process:
    """One member."""

    number: int
    popen: subprocess.Popen[bytes]
    partial: bytes = b""

    def tell(self, line: str) -> None:
        """Say a line to it."""
        assert self.popen.stdin is not None  # noqa: S101 - it was started with one
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()


@dataclass
class Group:
    """All members of one way."""

    processes: list[Process]
    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def hear(self, wanted: str, processes: list[Process], timeout_s: float) -> dict[int, dict[str, Any]]:
        """Return what each process says that has a field; of those that say nothing in time, nothing."""
        found: dict[int, dict[str, Any]] = {}
        missing = {process.number for process in processes}
        until_s = time.perf_counter() + timeout_s
        while missing and (left_s := until_s - time.perf_counter()) > 0:
            for key, _ in self.selector.select(left_s):
                process: Process = key.data
                data = os.read(key.fd, 1 << 16)
                if not data:
                    self.selector.unregister(key.fd)
                    missing.discard(process.number)
                *lines, process.partial = (process.partial + data).split(b"\n")
                for line in lines:
                    told = json.loads(line) if line.startswith(b"{") else {}
                    if wanted in told:
                        found[process.number] = told
                        missing.discard(process.number)
        return found


def start(way: str, count: int, num_values: int) -> Group:
    """Start a way's members and introduce them to each other."""
    kind, _, codec = way.partition(":")
    group = Group([])
    for number in range(count):
        command = [sys.executable, "-m", "bench.butterfly_member", kind, str(number), str(num_values), codec or "-"]
        popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        process = Process(number, popen)
        assert popen.stdout is not None  # noqa: S101 - as above
        group.selector.register(popen.stdout.fileno(), selectors.EVENT_READ, process)
        group.processes.append(process)
    said = group.hear("address", group.processes, START_S)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        store = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    for process in group.processes:
        # Each dials those before it: one connection for each pair.
        addresses = [said[other]["address"] for other in range(process.number)]
        peers = [one["peer_id"] for number, one in sorted(said.items()) if number != process.number]
        process.tell(json.dumps({"addresses": addresses, "peers": peers, "store": store, "count": count}))
    if len(group.hear("ready", group.processes, START_S)) < count:
        raise SystemExit(f"{way}: expected {count} members to be ready")
    return group


def end(group: Group) -> None:
    """End a group's processes."""
    for process in group.processes:
        if process.popen.stdin is not None:
            process.popen.stdin.close()
    for process in group.processes:
        try:
            process.popen.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()


def run_round(group: Group, kill_after_s: float | None = None) -> dict[int, dict[str, Any]]:
    """Run one round; with `kill_after_s` the last member is killed in it."""
    for process in group.processes:
        process.tell("go")
    if kill_after_s is None:
        return group.hear("seconds", group.processes, ROUND_S)
    time.sleep(kill_after_s)
    os.killpg(group.processes[-1].popen.pid, signal.SIGKILL)
    return group.hear("seconds", group.processes[:-1], ROUND_S)


def measure(way: str, count: int, megabytes: int, rounds: int, *, kill: bool) -> dict[str, Any]:
    """Return a way's row: the median of some rounds after a first one."""
    group = start(way, count, megabytes * 250_000)
    try:
        told = [run_round(group) for _ in range(rounds + 1)][1:]
        times = [max(one["seconds"] for one in each.values()) for each in told if len(each) == count]
        last = told[-1]
        row: dict[str, Any] = {
            "way": way,
            "megabytes": megabytes,
            "members": count,
            "seconds": statistics.median(times) if times else None,
            "agreed_s": max((one.get("agreed_s", 0.0) for one in last.values()), default=0.0),
            "over_formula": max(
                (one["bytes"] / one["formula"] for one in last.values() if one.get("formula")), default=0
            ),
            "equal": len({one.get("digest") for one in last.values()}) == 1,
            "whole": all(one["members"] == count and not one.get("lost") for one in last.values()),
        }
        if kill and times:
            survivors = run_round(group, 0.4 * row["seconds"])
            slowest = max((one["seconds"] for one in survivors.values()), default=ROUND_S)
            row["killed_s"] = slowest if len(survivors) == count - 1 else ROUND_S
            row["survivors_equal"] = len({one.get("digest") for one in survivors.values()}) == 1
        return row
    finally:
        end(group)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table: times, and each way's against gloo's."""
    table = Table("way", "MB", "members", "seconds", "x gloo", "roster s", "bytes/formula", "equal", "one killed s")
    for row in rows:
        gloo = next((r["seconds"] for r in rows if r["way"] == "gloo" and _place(r) == _place(row)), None)
        seconds = row["seconds"]
        table.add_row(
            row["way"],
            str(row["megabytes"]),
            str(row["members"]),
            "-" if seconds is None else f"{seconds:.3f}",
            "-" if not gloo or seconds is None else f"{seconds / gloo:.1f}",
            f"{row['agreed_s']:.3f}" if row["agreed_s"] else "",
            f"{row['over_formula']:.3f}" if row["over_formula"] else "",
            "yes" if row["equal"] and row["whole"] else "no",
            f"{row['killed_s']:.2f}" if "killed_s" in row else "",
        )
    Console().print(table)


def _place(row: dict[str, Any]) -> tuple[int, int]:
    return row["megabytes"], row["members"]


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10])
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for megabytes in arguments.megabytes:
        for count in arguments.members:
            for way in arguments.ways:
                rows.append(measure(way, count, megabytes, arguments.rounds, kill=arguments.kill))
                print(json.dumps(rows[-1]), flush=True)
    show(rows)


if __name__ == "__main__":
    main()
