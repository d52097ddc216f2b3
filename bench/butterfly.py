"""How long a merge takes, against gloo's all-reduce and hivemind's averager: members are processes, over real daemons.

    python -m bench.butterfly --megabytes 10 --members 2 4 8
    python -m bench.butterfly --megabytes 100 --members 8 --ways gloo ours:float32 ours:int8 hivemind:none
    python -m bench.butterfly --megabytes 10 --members 4 --ways ours:float32 --kill

A round is all of it: encoding, hashing, agreeing on a roster, reducing every shard twice, comparing, gathering; of
hivemind, matchmaking and all-reduce. Its time is the slowest member's; processor time is a member's mean, that of its
daemon apart. The roster's time begins with the last contribution. Sizes are those of the vector in float32. With --kill
one member is killed in the middle of a round, and the survivors' time counts.
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
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

WAYS = ("gloo", "ours:float32", "ours:bfloat16", "ours:int8", "ours:top-k", "hivemind:none", "hivemind:float16")
START_S = 120.0
ROUND_S = 240.0
KILLED_S = 60.0  # for the others; hivemind's were seen to wait for 150


@dataclass
class Process:
    """One member."""

    number: int
    popen: subprocess.Popen[bytes]
    partial: bytes = b""
    said: list[dict[str, Any]] = field(default_factory=list)

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
        """Return the next thing each process says that has a field; of those that say nothing in time, nothing."""
        found: dict[int, dict[str, Any]] = {}
        open_ = set(self.selector.get_map())
        until_s = time.perf_counter() + timeout_s
        while True:
            for process in processes:
                if process.number not in found:
                    found.update((process.number, told) for told in _take(process, wanted))
            silent = [one for one in processes if one.number not in found and _fileno(one) in open_]
            left_s = until_s - time.perf_counter()
            if not silent or left_s <= 0:
                return found
            for key, _ in self.selector.select(left_s):
                if not self._read(key.fd, key.data):
                    self.selector.unregister(key.fd)
                    open_.discard(key.fd)

    @staticmethod
    def _read(fd: int, process: Process) -> bool:
        data = os.read(fd, 1 << 16)
        *lines, process.partial = (process.partial + data).split(b"\n")
        process.said += [json.loads(line) for line in lines if line.startswith(b"{")]
        return bool(data)


def _fileno(process: Process) -> int:
    assert process.popen.stdout is not None  # noqa: S101 - it was started with one
    return process.popen.stdout.fileno()


def _take(process: Process, wanted: str) -> list[dict[str, Any]]:
    """Take what a process said up to the first thing with a field; return that."""
    place = next((at for at, told in enumerate(process.said) if wanted in told), None)
    if place is None:
        return []
    told = process.said[place]
    del process.said[: place + 1]
    return [told]


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
    return group


def end(group: Group) -> None:
    """End a group's processes."""
    for process in group.processes:
        if process.popen.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended
                process.popen.stdin.close()
    for process in group.processes:
        try:
            process.popen.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()


def run_round(group: Group, kill_after_s: float | None = None) -> dict[int, dict[str, Any]]:
    """Run one round, once all have their vectors; with `kill_after_s` the last member is killed in it."""
    if len(group.hear("ready", group.processes, START_S)) < len(group.processes):
        raise SystemExit("expected all members to be ready, got fewer: run one by hand to see why")
    for process in group.processes:
        process.tell("go")
    if kill_after_s is None:
        return group.hear("seconds", group.processes, ROUND_S)
    time.sleep(kill_after_s)
    os.killpg(group.processes[-1].popen.pid, signal.SIGKILL)
    return group.hear("seconds", group.processes[:-1], KILLED_S)


def measure(way: str, count: int, megabytes: int, rounds: int, *, kill: bool) -> dict[str, Any]:
    """Return a way's row: the median of some rounds after a first one."""
    group = start(way, count, megabytes * 250_000)
    try:
        told = [run_round(group) for _ in range(rounds + 1)][1:]
        times = [max(one["seconds"] for one in each.values()) for each in told if len(each) == count]
        last = told[-1]
        cpu_s = [one["cpu_s"] for each in told for one in each.values()]
        row: dict[str, Any] = {
            "way": way,
            "megabytes": megabytes,
            "members": count,
            "seconds": statistics.median(times) if times else None,
            "python_cpu_s": statistics.mean(one["python"] for one in cpu_s),
            "daemon_cpu_s": statistics.mean(one["daemon"] for one in cpu_s),
            "agreed_s": max(map(_matchmaking_s, told)),
            "over_formula": max(
                (one["bytes"] / one["formula"] for one in last.values() if one.get("formula")), default=0
            ),
            "equal": len({one.get("digest", number) for number, one in last.items()}) == 1,
            "whole": all(one["members"] == count and not one.get("lost") for one in last.values()),
        }
        if kill and times and way != "gloo":  # which has no such thing as survivors
            survivors = run_round(group, 0.4 * row["seconds"])
            slowest = max((one["seconds"] for one in survivors.values()), default=KILLED_S)
            row["killed_s"] = slowest if len(survivors) == count - 1 else KILLED_S
            row["survivors_equal"] = len({one.get("digest", number) for number, one in survivors.items()}) == 1
        return row
    finally:
        end(group)


def _matchmaking_s(told: dict[int, dict[str, Any]]) -> float:
    """Return how long after the last contribution all had a roster certificate: all clocks are this machine's."""
    if not told or not all("agreed_s" in one for one in told.values()):
        return 0.0
    return float(max(one["agreed_s"] for one in told.values()) - max(one["committed_s"] for one in told.values()))


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table: times, and each way's against gloo's."""
    table = Table(
        "way",
        "MB",
        "members",
        "seconds",
        "x gloo",
        "CPU-s",
        "daemon",
        "roster s",
        "bytes/formula",
        "equal",
        "one killed s",
    )
    for row in rows:
        gloo = next((r["seconds"] for r in rows if r["way"] == "gloo" and _place(r) == _place(row)), None)
        seconds = row["seconds"]
        table.add_row(
            row["way"],
            str(row["megabytes"]),
            str(row["members"]),
            "-" if seconds is None else f"{seconds:.3f}",
            "-" if not gloo or seconds is None else f"{seconds / gloo:.1f}",
            f"{row['python_cpu_s']:.2f}",
            f"{row['daemon_cpu_s']:.2f}",
            f"{row['agreed_s']:.3f}" if row["agreed_s"] else "",
            f"{row['over_formula']:.3f}" if row["over_formula"] else "",
            "yes" if row["equal"] and row["whole"] else "no",
            f"{row['killed_s']:.2f}" if "killed_s" in row else "",
        )
    Console(width=120).print(table)


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
