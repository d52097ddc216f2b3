"""How many records an auditor verifies and recomputes per second of one core, and how much of that is bare Ed25519.

    .venv/bin/python bench/audit.py [--records N] [--json FILE]

The archive: a run of 3 epochs, 3 stages and 4 validators, who all score every epoch; each of N loss records per epoch
holds 3 signatures and is shown twice, by its tail and by its source. Processor time of one thread, so other load on
the machine matters little.

    read        facts out of an SQLite ledger
    opened      everything but loss records: form, signature, place
    verified    score records: rules, chains, tree heads, elections, results, seeds (`iota-p2p audit verify`)
    recomputed  score records from their evidence (`iota-p2p audit recompute`), loss records with it
    witnessed   the part of that which a validator does as well: loss records, each receipt and signature in them
    envelopes   signed envelopes opened on the way, in loss records

    allowed     loss records, or score records, a second if a record were nothing but its signatures or its VRF proof

The reach is 5,000 records a second, and no kind of record gets there whole. A score record holds an election's proof,
whose check alone (`vrf`) takes longer than 5,000 records may. 5,000 loss records of 3 stages are 15,000 signatures, of
which bare libsodium does 16,000 to 18,000 here: more than half of the time of a witnessed record is signatures, and
the rest would have to shrink to a fifth. What gets there is envelopes: each one signature, checked and read.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from iota_p2p.audit.archive import read_archive
from iota_p2p.audit.dossier import Dossier, open_dossier
from iota_p2p.audit.recomputation import recompute
from iota_p2p.audit.verification import verify
from iota_p2p_crypto import vrf
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.loss_record import open_loss_record, verify_chain
from tests.audit.worlds import NUM_EPOCHS, build_world
from tests.scoring.scenes import RUN, STAGES

REACH = 5_000  # records per second of one core
SIGNATURES = len(STAGES)  # of each loss record: a receipt per stage before the last, and its own
T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what a piece of work returns, and its seconds of processor."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def bare_signatures_per_s(count: int = 2_000) -> float:
    """Return how many signatures of the size of a receipt this core checks, and nothing else."""
    from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair  # noqa: PLC0415 - only here

    public, secret = crypto_sign_seed_keypair(bytes(32))
    signed = crypto_sign(bytes(200), secret)
    _, took_s = timed(lambda: [crypto_sign_open(signed, public) for _ in range(count)])
    return count / took_s


def bare_proofs_per_s(count: int = 100) -> float:
    """Return how many elections' proofs this core checks, and nothing else."""
    identity = Identity.from_seed(bytes(32))
    proof = vrf.prove(identity, b"input")
    _, took_s = timed(lambda: [vrf.verify(identity.peer_id, b"input", proof) for _ in range(count)])
    return count / took_s


def witness(dossier: Dossier) -> int:
    """Check every loss record by itself; return how many there are."""
    for envelope in dossier.loss_records.values():
        verify_chain(open_loss_record(envelope), run_id=RUN, epochs=range(NUM_EPOCHS), num_stages=len(STAGES))
    return len(dossier.loss_records)


def measure(num_records: int, folder: Path) -> dict[str, Any]:
    """Return the rates."""
    build_world(num_records).write(folder)
    archive, read_s = timed(lambda: read_archive([folder]))
    dossier, open_s = timed(lambda: open_dossier(archive))
    failures, verify_s = timed(lambda: verify(dossier))
    outcome, recompute_s = timed(lambda: recompute(dossier))
    if failures or outcome.failures:
        raise SystemExit(f"expected an archive that holds, got {(failures + outcome.failures)[0]}")
    num_losses, witness_s = timed(lambda: witness(dossier))
    bare = bare_signatures_per_s()
    return {
        "score_records": outcome.num_records,
        "loss_records": num_losses,
        "facts_read_per_s": sum(1 for _ in archive.all()) / read_s,
        "score_records_verified_per_s": outcome.num_records / (open_s + verify_s),
        "score_records_recomputed_per_s": outcome.num_records / recompute_s,
        "loss_records_recomputed_per_s": num_losses / recompute_s,
        "loss_records_shown_per_s": 2 * num_losses / recompute_s,
        "loss_records_witnessed_per_s": num_losses / witness_s,
        "signatures_bare_per_s": bare,
        "loss_records_allowed_per_s": bare / SIGNATURES,
        "envelopes_opened_per_s": SIGNATURES * num_losses / witness_s,
        "score_records_allowed_per_s": bare_proofs_per_s(),
        "signatures_share": SIGNATURES * num_losses / bare / witness_s,
        "reach": REACH,
    }


def main() -> None:
    """Measure, print, and write JSON if asked to. A missed reach is shown, not an exit code."""
    parser = argparse.ArgumentParser(description="What an auditor does per second of one core.")
    parser.add_argument("--records", type=int, default=1_000, help="loss records per epoch (default 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.records, Path(folder))
    print(
        f"{found['score_records']} score records over {found['loss_records']:,} loss records; per second of one core:"
    )
    for name in (
        "facts_read",
        "score_records_verified",
        "score_records_recomputed",
        "loss_records_recomputed",
        "loss_records_witnessed",
        "loss_records_shown",
        "signatures_bare",
        "loss_records_allowed",
        "envelopes_opened",
        "score_records_allowed",
    ):
        print(f"{name.replace('_', ' '):<28}{found[name + '_per_s']:>12,.0f}")
    for name in ("score_records_verified", "loss_records_witnessed", "envelopes_opened"):
        mark = "reached" if found[f"{name}_per_s"] >= REACH else "MISSED"
        print(f"{name.replace('_', ' ')}: reach {REACH:,} {mark}")
    print(f"of a loss record's time bare signatures are {found['signatures_share']:.0%}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
