"""What trust costs: envelopes, lots and logs against bare Ed25519 on the same bytes in the same run.

    python bench/crypto.py [--json FILE] [--repeats N]

One process, one core. Cases take turns within each repeat, so that a busy machine slows all of them alike; rates
are medians over the repeats, and ratios are medians of each repeat's own ratio. The payloads are a receipt's, the
envelope met most often by far, and a score record's: a table of 25 peers with a dozen integers each, once with a name
for every integer and once by position, as tables should travel. "raw" is PyNaCl's sign or verify of the very bytes an
envelope signs, plus one SHA-256 of them.

Predicted before the first run: opening an envelope 1.4 times raw and 8,000 per second, sealing 1.8 times raw; VRF
prove 0.5 ms (a prototype took 3.7), Merkle append 2.5 us and prove 15 us at 10^6 leaves. The first run refuted the
envelope's: 2.5 times raw with named integers, 1.9 without. Decoding and re-encoding the table is what costs.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from nacl.bindings import crypto_sign, crypto_sign_open

from iota_p2p_crypto import canonical, vrf
from iota_p2p_crypto.domains import SCORE
from iota_p2p_crypto.envelope import open_envelope, pre_authentication_encoding, seal
from iota_p2p_crypto.identity import Identity, peer_id_to_bytes
from iota_p2p_crypto.merkle import MerkleTree, verify_inclusion

NUM_PEERS = 25
NUM_LEAVES = 1_000_000
INTEGERS = (
    "clasp", "clasp_high", "clasp_low", "faults", "loss", "microbatches", "replays", "score", "stage", "tokens",
    "uptime", "verdict",
)  # fmt: skip
MOST_OPEN_RATIO = 1.5
LEAST_OPENED_PER_S = 5_000
RAW_SIGN, RAW_VERIFY = "raw sign + sha256", "raw verify + sha256"
SLICE_S = 0.1  # of one case within one repeat: long against the clock, short against the machine's moods


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    per_s: float
    ratio: float | None = None  # of time, to the raw case it stands under
    reach: str = ""
    reached: bool | None = None


def payloads() -> dict[str, Any]:
    """Return a receipt's fields, and a score record in two shapes: rows that name each integer, and positional rows."""
    peers = [Identity.from_seed(sha256(bytes((i,))).digest()).peer_id for i in range(NUM_PEERS)]
    rows = [
        {"peer": peer_id_to_bytes(peer), **{name: (i + 1) * (j + 1) * 7919 for j, name in enumerate(INTEGERS)}}
        for i, peer in enumerate(peers)
    ]
    record = {"epoch": 7, "previous": bytes(32), "run_id": bytes(32), "vrf": bytes(vrf.PROOF_BYTES)}
    receipt = (bytes(32), 2, "forward", bytes(32), bytes(32))
    return {
        "receipt": receipt,
        "named": {**record, "table": tuple(rows)},
        "positional": {**record, "table": tuple(tuple(row.values()) for row in rows)},
    }


def seconds_per_call(call: Callable[[], object]) -> float:
    """Run for about SLICE_S and return the mean time of one call."""
    start = time.perf_counter()
    call()
    batch = max(1, int(SLICE_S / 8 / (time.perf_counter() - start)))
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SLICE_S:
        for _ in range(batch):
            call()
        calls += batch
    return spent / calls


def envelope_cases(payload: Any, me: Identity) -> dict[str, Callable[[], object]]:
    """Return what is timed for one payload."""
    payload_bytes = canonical.encode(payload)
    message = pre_authentication_encoding(SCORE.payload_type, payload_bytes)
    secret = me.seed + me.public_key
    signed = crypto_sign(message, secret)
    envelope = seal(SCORE, payload, [me])
    return {
        RAW_SIGN: lambda: (crypto_sign(message, secret), sha256(message).digest()),
        "envelope seal": lambda: seal(SCORE, payload, [me]),
        RAW_VERIFY: lambda: (crypto_sign_open(signed, me.public_key), sha256(message).digest()),
        "envelope open": lambda: open_envelope(envelope, SCORE, lambda fields: fields),
        "  of which payload decode": lambda: canonical.decode(payload_bytes),
    }


def measure_envelopes(repeats: int) -> list[Row]:
    """Time every case of every payload in turn, `repeats` times over."""
    me = Identity.from_seed(bytes(range(32)))
    rows = []
    for shape, payload in payloads().items():
        calls = envelope_cases(payload, me)
        times = interleaved(calls, repeats)
        for name, spent in times.items():
            base = times[RAW_SIGN if name == "envelope seal" else RAW_VERIFY]
            ratio = statistics.median(a / b for a, b in zip(spent, base, strict=True))
            rows.append(Row(f"{name}, {shape}", 1 / statistics.median(spent), None if "raw" in name else ratio))
        opened = next(row for row in rows if row.name == f"envelope open, {shape}")
        size = len(canonical.encode(payload))
        rows += [
            replace(
                opened,
                name=f"  reach, {size:,} bytes",
                reach=f"<= {MOST_OPEN_RATIO}x raw",
                reached=(opened.ratio or 0) <= MOST_OPEN_RATIO,
            ),
            replace(
                opened,
                name=f"  reach, {size:,} bytes",
                reach=f">= {LEAST_OPENED_PER_S:,}/s",
                reached=opened.per_s >= LEAST_OPENED_PER_S,
            ),
        ]
    return rows


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return each case's seconds per call, one figure for each round through all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds_per_call(call))
    return times


def measure_vrf(repeats: int) -> list[Row]:
    """Time the VRF."""
    me = Identity.from_seed(bytes(range(32)))
    proof = vrf.prove(me, b"epoch seed")
    calls: dict[str, Callable[[], object]] = {
        "VRF prove": lambda: vrf.prove(me, b"epoch seed"),
        "VRF verify": lambda: vrf.verify(me.peer_id, b"epoch seed", proof),
    }
    return [Row(name, 1 / statistics.median(spent)) for name, spent in interleaved(calls, repeats).items()]


def measure_merkle() -> list[Row]:
    """Grow a tree to 10^6 leaves once, then prove and verify in it."""
    tree = MerkleTree()
    start = time.perf_counter()
    for index in range(NUM_LEAVES):
        tree.append(index.to_bytes(8, "big"))
    appended_s = time.perf_counter() - start
    index, root = NUM_LEAVES // 3, tree.root()
    proof = tree.prove_inclusion(index)
    data = index.to_bytes(8, "big")
    timed: dict[str, Callable[[], object]] = {
        "Merkle prove inclusion": lambda: tree.prove_inclusion(index),
        "Merkle verify inclusion": lambda: verify_inclusion(
            root=root, size=NUM_LEAVES, index=index, data=data, proof=proof
        ),
        "Merkle prove consistency": lambda: tree.prove_consistency(index),
    }
    rows = [Row(name, 1 / seconds_per_call(call)) for name, call in timed.items()]
    return [Row("Merkle append, to 10^6", NUM_LEAVES / appended_s), *rows]


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"{'':<40}{'per second':>12}{'us each':>10}{'x raw':>8}  reach")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        mark = "" if row.reached is None else f"{row.reach} {'reached' if row.reached else 'MISSED'}"
        print(f"{row.name:<40}{row.per_s:>12,.0f}{1e6 / row.per_s:>10.1f}{ratio:>8}  {mark}".rstrip())


def main() -> None:
    """Measure, print, and write JSON if asked to. A missed reach is shown, not an exit code."""
    parser = argparse.ArgumentParser(description="Speed of envelopes, VRF and Merkle trees.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--repeats", type=int, default=9, help="rounds through all cases (default 9)")
    options = parser.parse_args()
    rows = [*measure_envelopes(options.repeats), *measure_vrf(options.repeats), *measure_merkle()]
    show(rows)
    if options.json:
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
