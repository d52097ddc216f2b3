"""Replay verdicts: one rule each, on what a replay could come to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.scoring.evidence import JoinedEvidence, Witnessed
from iota_p2p_protocols.scoring.replay_draw import draw_replays, pairs_in
from iota_p2p_protocols.scoring.replay_verdict import (
    LOSS_TOLERANCE_MICRONATS,
    MAX_CROSSING,
    MAX_OPEN,
    Likeness,
    Owed,
    Redone,
    Replayed,
    check_log,
    judge,
    owed_by,
    worse,
)
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import Backward, Forward, InnerStep, WorkLog
from tests.scoring import scenes
from tests.scoring.scenes import EPOCH, NOW_S, RUN, STAGES

SOURCE = STAGES[0][0].peer_id
END = digest(b"end")
MANY = 3 * MAX_CROSSING


def microbatch(counter: int) -> MicrobatchId:
    return MicrobatchId(epoch=EPOCH, source=SOURCE, counter=counter)


def name(*parts: object) -> bytes:
    return digest(repr(parts).encode())


def commitment(log: WorkLog | None = None) -> WorkCommitment:
    return WorkCommitment(
        run_id=RUN,
        sequence=1,
        issued_s=NOW_S,
        expires_s=NOW_S + 1,
        epoch=EPOCH,
        stage=1,
        log_root=name("log") if log is None else log.root,
        num_entries=1 if log is None else len(log),
        start_digest=name("start"),
        end_digest=END,
    )


def owed(count: int = MANY, loss: int | None = None) -> list[Owed]:
    return [Owed(microbatch(n), name("in", n), name("out", n), loss) for n in range(count)]


def redone(work: Sequence[Owed], **changes: object) -> list[Redone]:
    """Return a replay in which everything comes out as owed, but for changes."""
    return [
        replace(
            Redone(
                one.microbatch,
                one.in_digest,
                one.out_digest if one.loss_micronats is None else None,
                one.loss_micronats,
                one.out_digest,
            ),
            **changes,  # type: ignore[arg-type] # whatever a test wants
        )
        for one in work
    ]


def verdict(work: Sequence[Owed], done: Sequence[Redone], end: bytes = END, like: Likeness | None = None) -> str:
    found = judge(commitment(), work, Replayed(done, end, like))
    return found.reason if found.replay == "failed" else found.replay


@pytest.mark.parametrize("loss", [None, 4_000_000], ids=["middle", "last"])
def test_judge__passes_what_comes_out_again(loss: int | None) -> None:
    assert verdict(owed(loss=loss), redone(owed(loss=loss))) == "passed"


@pytest.mark.parametrize(("crossing", "expected"), [(MAX_CROSSING, "passed"), (MAX_CROSSING + 1, "no-forward")])
def test_judge__lets_only_so_many_microbatches_cross_an_epochs_ends(crossing: int, expected: str) -> None:
    assert verdict(owed(), redone(owed())[crossing:]) == expected


def test_judge__names_skipped_backwards() -> None:
    assert verdict(owed(), redone(owed(), backward=None)) == "no-backward"


def test_judge__names_other_outputs_even_where_they_are_alike_on_the_same_platform() -> None:
    alike, rounded = Likeness(1.0, 0.999), Likeness(1.0, 0.99999999)
    assert verdict(owed(), redone(owed(), out_digest=name("other"), likeness=rounded)) == "passed"
    assert verdict(owed(), redone(owed(), out_digest=name("other"), likeness=alike)) == "output"
    few = MAX_CROSSING + 1
    mixed = [*redone(owed()[:few], out_digest=name("other"), likeness=alike), *redone(owed()[few:])]
    assert verdict(owed(), mixed, name("another end"), alike) == "output"


@pytest.mark.parametrize(
    ("like", "expected"),
    [
        (Likeness(0.95, 0.99), "passed"),
        (Likeness(0.7, 0.99), "output"),
        (Likeness(0.95, 0.8), "output"),
        (Likeness(float("nan"), float("nan")), "output"),
        (None, "output"),
    ],
)
def test_judge__asks_other_platforms_for_likeness_only(like: Likeness | None, expected: str) -> None:
    """Neither an output nor the end is the same bytes; the update of the weights is alike."""
    done = redone(owed(), out_digest=name("other"), likeness=like)
    assert verdict(owed(), done, name("another end"), Likeness(0.9, 0.95)) == expected


def test_judge__names_an_end_that_the_log_does_not_lead_to() -> None:
    good, bad = Likeness(1.0, 1.0), Likeness(0.5, 0.99)
    assert verdict(owed(), redone(owed()), name("another end"), good) == "passed"  # a last bit
    assert verdict(owed(), redone(owed()), name("another end"), bad) == "end-state"
    far = redone(owed(), out_digest=name("other"), likeness=good)
    assert verdict(owed(), far, name("another end"), bad) == "end-state"
    assert verdict(owed(), far, name("another end"), None) == "end-state"


@pytest.mark.parametrize(
    ("off", "expected"), [(LOSS_TOLERANCE_MICRONATS, "passed"), (LOSS_TOLERANCE_MICRONATS + 1, "loss")]
)
def test_judge__names_losses_that_were_not_found(off: int, expected: str) -> None:
    work = owed(loss=4_000_000)
    assert verdict(work, redone(work, loss_micronats=4_000_000 + off)) == expected


def test_judge__wants_the_last_stage_to_go_back_through_the_record_it_signed() -> None:
    work = owed(loss=4_000_000)
    assert verdict(work, redone(work, backward=name("another record"))) == "no-backward"


def test_owed_by__is_what_receipts_and_records_say() -> None:
    path = [replicas[0] for replicas in STAGES]
    record = scenes.loss_record(path, 7, 4_000_000)
    evidence = JoinedEvidence((Witnessed(record, tuple(one.peer_id for one in path)),), {}, {}, {})
    assert pairs_in(evidence) == {(one.peer_id, stage) for stage, one in enumerate(path)}
    first, middle, last = (owed_by(one.peer_id, stage, evidence, RUN)[0] for stage, one in enumerate(path))
    assert first.in_digest == record.payload.microbatch.digest(RUN)
    assert (middle.in_digest, last.in_digest) == (first.out_digest, middle.out_digest)
    assert (last.out_digest, last.loss_micronats) == (record.digest, 4_000_000)
    assert owed_by(path[0].peer_id, 1, evidence, RUN) == []


def log_of(*entries: Forward | Backward | InnerStep) -> WorkLog:
    log = WorkLog()
    for entry in entries:
        log.append(entry)
    return log


def forward(counter: int) -> Forward:
    return Forward(microbatch=microbatch(counter), in_digest=name("in", counter))


def test_check_log__names_another_log_and_steps_out_of_time() -> None:
    back = Backward(forward=0, in_digest=name("gradient"))
    good = log_of(forward(0), back, InnerStep(number=0))
    assert check_log(good, commitment(good), 1) == "none"
    assert check_log(good, commitment(), 1) == "log-root"
    assert check_log(good, commitment(good), 2) == "log-steps"
    late = log_of(forward(0), back, forward(1))
    assert check_log(late, commitment(late), 1) == "log-steps"


def test_check_log__bounds_the_graphs_of_a_replay() -> None:
    entries: list[Forward | Backward | InnerStep] = [forward(n) for n in range(MAX_OPEN + 1)]
    never = log_of(*entries)
    assert check_log(never, commitment(never), 100) == "none"
    all_back = log_of(*entries, *(Backward(forward=n, in_digest=name("g")) for n in range(MAX_OPEN + 1)))
    assert check_log(all_back, commitment(all_back), 100) == "log-open"


def test_draw__is_everybodys_same_and_even() -> None:
    pairs = [(Identity.from_seed(bytes([n]) * 32).peer_id, stage) for n in range(4) for stage in range(2)]
    counts = dict.fromkeys(pairs, 0)
    for round_ in range(400):
        drawn = draw_replays(name(round_), pairs, 2)
        assert drawn == draw_replays(name(round_), pairs[::-1], 2)
        assert len(set(drawn)) == 2
        for pair in drawn:
            counts[pair] += 1
    assert all(60 < count < 140 for count in counts.values())  # 100 each, and 8.7 either way
    assert draw_replays(name(0), pairs[:1], 3) == (pairs[0],)


def test_worse__a_failure_is_not_undone_by_a_pass() -> None:
    assert worse("passed", "failed") == worse("failed", "passed") == "failed"
    assert worse("not-drawn", "passed") == "passed"
    assert worse("passed", "no-evidence") == "no-evidence"
