"""`audit verify`: do the signed facts of a run fit together? Needs the facts, and nothing and nobody else.

In this order, each only about what held so far: records by their own rules; each validator's chain; its tree heads
over that chain; its elections, by seeds that follow from the results; the results themselves.
"""

from collections.abc import Sequence
from itertools import pairwise

from iota_p2p.audit.dossier import Dossier
from iota_p2p.audit.failure import Check, Failure
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.merkle import MerkleTree
from iota_p2p_protocols.scoring.election import Electorate, electorate, verify_election
from iota_p2p_protocols.scoring.result import SEED_LAG, EpochResult, check_result, open_certified_result
from iota_p2p_protocols.scoring.score_record import ScoreRecord, check_record, check_successor
from iota_p2p_protocols.scoring.seed_chain import genesis_seed, next_seed


def verify(dossier: Dossier) -> list[Failure]:
    """Return everything that does not fit, in the order of checking; what could not be opened comes first."""
    failures = list(dossier.failures)
    failures += _check_records(dossier)
    failures += _check_chains(dossier)
    failures += _check_heads(dossier)
    outputs = _check_elections(dossier, failures)
    failures += _check_results(dossier, outputs)
    return failures


def subject_of(record: Verified[ScoreRecord]) -> str:
    """Name a score record for people."""
    return f"score record {record.payload.position} of epoch {record.payload.epoch}"


def _check_records(dossier: Dossier) -> list[Failure]:
    failures = []
    for record in dossier.record_by_digest().values():
        rules = dossier.rules.get(Digest(record.payload.rules))
        if rules is None:
            failures.append(
                _failure(Check.MISSING, record, "score-rules", f"expected the rules {record.payload.rules.hex()[:16]}")
            )
            continue
        try:
            check_record(record, rules)
        except RemoteProtocolError as error:
            failures.append(_failure(Check.SUM, record, error.rule, str(error)))
    return failures


def _check_chains(dossier: Dossier) -> list[Failure]:
    """Check that records follow each other; two of one epoch or position convict their signer."""
    failures = []
    for records in dossier.records.values():
        for before, record in pairwise(records):
            if before.payload.epoch == record.payload.epoch:
                reason = "expected one record of an epoch, got two that differ"
                failures.append(_failure(Check.EQUIVOCATION, record, "equivocation-records", reason))
                continue
            try:
                check_successor(record, before)
            except RemoteProtocolError as error:
                failures.append(_failure(Check.CHAIN, record, error.rule, str(error)))
        if records and records[0].payload.position:
            reason = f"expected the records before it, got none of {records[0].payload.position}"
            failures.append(_failure(Check.MISSING, records[0], "score-chain", reason))
    failures += [
        Failure(Check.EQUIVOCATION, f"{one.kind}, {one.about}", "equivocation-proof", "a proof was kept", one.guilty)
        for one in dossier.equivocations
    ]
    return failures


def _check_heads(dossier: Dossier) -> list[Failure]:
    failures = []
    for peer_id, heads in dossier.heads.items():
        for head, other in pairwise(heads):
            if head.payload.size == other.payload.size and head.payload.root != other.payload.root:
                reason = "expected one root of a size, got two that exclude each other"
                subject = f"tree heads of size {head.payload.size}"
                failures.append(Failure(Check.EQUIVOCATION, subject, "equivocation-heads", reason, peer_id))
        tree = MerkleTree(record.envelope_bytes for record in dossier.records.get(peer_id, []))
        for head in heads:
            subject = f"tree head of size {head.payload.size}"
            if head.payload.size > len(tree):
                reason = f"expected {head.payload.size} records of the log, got {len(tree)}"
                failures.append(Failure(Check.MISSING, subject, "tree-head-size", reason, peer_id))
            elif head.payload.root != tree.root(head.payload.size):
                reason = "expected the root over the records, got another"
                failures.append(Failure(Check.LOG, subject, "tree-head-root", reason, peer_id))
    return failures


def seeds_of(dossier: Dossier, last: int) -> list[Digest]:
    """Return the seeds of epochs 0 to `last`, as far as the results of the dossier say what was revealed.

    An epoch without a result continues the chain without outputs. A result's own claim is taken here and checked with
    the results.
    """
    seeds = [genesis_seed(dossier.run_id)]
    for epoch in range(1, last + 1):
        results = dossier.results.get(epoch - SEED_LAG, [])
        seeds.append(Digest(results[0].payload.seed) if results else next_seed(seeds[-1], epoch, {}))
    return seeds


def electorate_of(dossier: Dossier, record: Verified[ScoreRecord]) -> Electorate | None:
    """Return who could score the epoch of a record; None without its rules."""
    rules = dossier.rules.get(Digest(record.payload.rules))
    if rules is None:
        return None
    return electorate(dossier.registrations, epoch=record.payload.epoch, seats=rules.seats)


def _check_elections(dossier: Dossier, failures: list[Failure]) -> dict[Digest, bytes]:
    """Check every record's election; return the outputs that hold, by record."""
    records = dossier.record_by_digest()
    last = max((record.payload.epoch for record in records.values()), default=0)
    seeds = seeds_of(dossier, last + 1)
    outputs = {}
    for name, record in records.items():
        voters = electorate_of(dossier, record)
        if voters is None:
            continue
        seed = seeds[record.payload.epoch + 1]
        try:
            outputs[name] = verify_election(
                record.signer, record.payload.election, voters, run_id=dossier.run_id, seed=seed
            )
        except RemoteProtocolError as error:
            failures.append(_failure(Check.ELECTION, record, error.rule, str(error)))
    return outputs


def _check_results(dossier: Dossier, outputs: dict[Digest, bytes]) -> list[Failure]:
    failures = []
    for epoch, results in sorted(dossier.results.items()):
        if len({result.payload_bytes for result in results}) > 1:
            failures.append(
                Failure(Check.RESULT, f"result of epoch {epoch}", "result-one", "expected one result, got several")
            )
        for result in results:
            try:
                failures += _check_result(dossier, result, outputs)
            except RemoteProtocolError as error:
                failures.append(Failure(Check.RESULT, f"result of epoch {epoch}", error.rule, str(error)))
    return failures


def _check_result(dossier: Dossier, result: Verified[EpochResult], outputs: dict[Digest, bytes]) -> Sequence[Failure]:
    payload, known = result.payload, dossier.record_by_digest()
    subject = f"result of epoch {payload.epoch}"
    missing = [name for name in payload.records if name not in known or name not in outputs]
    if missing:
        reason = f"expected {len(payload.records)} records that hold, got {len(payload.records) - len(missing)}"
        return [Failure(Check.MISSING, subject, "result-records", reason)]
    records = [known[Digest(name)] for name in payload.records]
    voters = electorate_of(dossier, records[0])
    assert voters is not None  # noqa: S101 - its election was checked
    check_result(payload, records, voters.weights)
    open_certified_result(result, records, voters.quorum)
    revealed = {record.signer: outputs[record.digest] for record in records}
    before = seeds_of(dossier, payload.epoch + SEED_LAG - 1)[-1]
    if payload.seed != next_seed(before, payload.epoch + SEED_LAG, revealed):
        reason = "expected the seed that the records' outputs make, got another"
        return [Failure(Check.RESULT, subject, "result-seed", reason)]
    return []


def _failure(check: Check, record: Verified[ScoreRecord], rule: str, reason: str) -> Failure:
    return Failure(check, subject_of(record), rule, reason, PeerId(record.signer))
