"""What the network costs: our streams, gossip and rendezvous over real daemons on this machine's loopback.

    python -m bench.network [--quick] [--json FILE] [--swarms 8 16 32]

Streams: both ends in this process, one libp2p daemon each, against two baselines that take turns with ours within each
repeat, so that a busy machine slows all alike: "raw" is plain trio TCP, "bare" is the daemon's own stream without our
layers. A message is sent whole and acknowledged. CPU is Python's alone, of both ends together. Ratios are medians of
each repeat's own ratio. Swarms: so many real daemons with peers on them, all in this process; so the latencies
hold one Python's delays for all of them.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import trio

from bench.network_rows import Row
from bench.network_streams import measure_streams
from bench.network_swarm import measure_process, measure_swarm


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    for row in rows:
        mark = "" if row.reached is None else f"{row.reach}: {'reached' if row.reached else 'MISSED'}"
        print(f"{row.name:<44}{row.figure:<72}{mark}".rstrip(), flush=True)


async def measure(swarms: Sequence[int], *, quick: bool) -> list[Row]:
    """Measure everything, printing as it goes."""
    rows = []
    for part in (measure_process(), await measure_streams(quick=quick)):
        show(part)
        rows += part
    for num_peers in swarms:
        part = await measure_swarm(num_peers, quick=quick)
        show(part)
        rows += part
    return rows


def main() -> None:
    """Measure, print, and write JSON if asked to. A missed mark is shown, not an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats: a minute instead of several")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    parser.add_argument(
        "--swarms", type=int, nargs="*", default=[8, 16, 32], metavar="PEERS", help="sizes of the swarms"
    )
    options = parser.parse_args()
    rows = trio.run(lambda: measure(options.swarms, quick=options.quick))
    if options.json:
        report = {"load": os.getloadavg(), "cores": os.cpu_count(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
