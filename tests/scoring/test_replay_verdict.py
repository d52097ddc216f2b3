"""Replay verdicts: one rule each, on what a replay could come to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.scoring.evidence import JoinedEvidence, Witnessed
from iota_p2p_protocols.scoring.replay_draw import work_of_pairs
from iota_p2p_protocols.scoring.replay_verdict import (
    LOSS_TOLERANCE_MICRONATS,
    MAX_AGAIN,
    MAX_CROSSING,
    MAX_ODD,
    MAX_OPEN,
    Likeness,
    Owed,
    Redone,
    Replayed,
    Returned,
    check_log,
    judge,
    judged_backwards,
    judged_forwards,
    owed_by,
    read_log,
    worse,
)
from iota_p2p_protocols.scoring.segments import Segment
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


def commitment(log: WorkLog | None = None, num_segments: int = 1) -> WorkCommitment:
    return WorkCommitment(
        run_id=RUN,
        sequence=1,
        issued_s=NOW_S,
        expires_s=NOW_S + 1,
        epoch=EPOCH,
        stage=1,
        log_root=name("log") if log is None else log.root,
        num_entries=1 if log is None else len(log),
        theta_digest=name("theta"),
        checkpoints=tuple(name("checkpoint", n) for n in range(num_segments + 1)),
        stashes=tuple(name("stash", n) for n in range(num_segments - 1)),
    )


def owed(count: int = MANY, loss: int | None = None) -> list[Owed]:
    return [Owed(microbatch(n), name("in", n), name("out", n), loss, name("record", n), SOURCE) for n in range(count)]


def redone(work: Sequence[Owed], **changes: object) -> list[Redone]:
    """Return a replay in which everything comes out as owed, but for changes."""
    return [
        replace(
            Redone(one, one.out_digest if one.loss_micronats is None else None, one.loss_micronats),
            **changes,  # type: ignore[arg-type] # whatever a test wants
        )
        for one in work
    ]


def verdict(done: Sequence[Redone], end: bytes = END, like: Likeness | None = None) -> str:
    found = judge(END, Replayed(done, end, like))
    return found.reason if found.replay == "failed" else found.replay


@pytest.mark.parametrize("loss", [None, 4_000_000], ids=["middle", "last"])
def test_judge__passes_what_comes_out_again(loss: int | None) -> None:
    assert verdict(redone(owed(loss=loss))) == "passed"


@pytest.mark.parametrize(
    ("num_odd", "count", "expected"),
    [(MAX_ODD, 4, "passed"), (MAX_ODD + 1, 4, "output"), (1, 1, "output"), (0, 0, "passed")],
)
def test_judge__lets_no_more_than_a_stray_output_differ(num_odd: int, count: int, expected: str) -> None:
    work = owed(count)
    assert verdict([*redone(work[:num_odd], out_digest=name("other")), *redone(work[num_odd:])]) == expected


def test_judge__names_other_outputs_even_where_they_are_alike_on_the_same_platform() -> None:
    alike, rounded = Likeness(1.0, 0.999), Likeness(1.0, 0.99999999)
    assert verdict(redone(owed(), out_digest=name("other"), likeness=rounded)) == "passed"
    assert verdict(redone(owed(), out_digest=name("other"), likeness=alike)) == "output"
    few = MAX_ODD + 1
    mixed = [*redone(owed()[:few], out_digest=name("other"), likeness=alike), *redone(owed()[few:])]
    assert verdict(mixed, name("another end"), alike) == "output"


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
    assert verdict(done, name("another end"), Likeness(0.9, 0.95)) == expected


def test_judge__names_an_end_that_the_segment_does_not_lead_to() -> None:
    good, bad = Likeness(1.0, 1.0), Likeness(0.5, 0.99)
    assert verdict(redone(owed()), name("another end"), good) == "passed"  # a last bit
    assert verdict(redone(owed()), name("another end"), bad) == "end-state"
    far = redone(owed(), out_digest=name("other"), likeness=good)
    assert verdict(far, name("another end"), bad) == "end-state"
    assert verdict(far, name("another end"), None) == "end-state"


@pytest.mark.parametrize(
    ("off", "expected"), [(LOSS_TOLERANCE_MICRONATS, "passed"), (LOSS_TOLERANCE_MICRONATS + 1, "loss")]
)
def test_judge__names_losses_that_were_not_found(off: int, expected: str) -> None:
    assert verdict(redone(owed(loss=4_000_000), loss_micronats=4_000_000 + off)) == expected


def returned(count: int, num_odd: int = 0, **changes: object) -> list[Returned]:
    """Return gradients that are those computed, but for changes in the first of them."""
    good = [Returned(name("in", n), name("out", n), name("in", n), name("out", n)) for n in range(count)]
    return [replace(one, **changes) for one in good[:num_odd]] + good[num_odd:]  # type: ignore[arg-type] # as a test wants


def verdict_back(came: Sequence[Returned], end: bytes = END, like: Likeness | None = None) -> str:
    found = judge(END, Replayed(redone(owed(loss=4_000_000)), end, like, came))
    return found.reason if found.replay == "failed" else found.replay


@pytest.mark.parametrize("changed", ["signed_in", "signed_out"])
@pytest.mark.parametrize(
    ("num_odd", "count", "expected"),
    [(MAX_ODD, 4, "passed"), (MAX_ODD + 1, 4, "gradient"), (1, 1, "gradient"), (0, 0, "passed")],
)
def test_judge__names_gradients_that_do_not_come_out(num_odd: int, count: int, expected: str, changed: str) -> None:
    """Neither what was sent may differ, nor what the receipt says that it was made of."""
    assert verdict_back(returned(count, num_odd, **{changed: name("other")})) == expected


def test_judge__asks_for_the_same_gradients_on_the_same_platform_alone() -> None:
    alike, far = Likeness(0.9, 0.95), Likeness(0.9, 0.85)
    good = Likeness(1.0, 1.0)
    assert verdict_back(returned(4, 4, signed_out=name("other"), likeness=alike)) == "gradient"  # the same end
    assert verdict_back(returned(4, 4, signed_out=name("other"), likeness=alike, crosses=True)) == "passed"
    assert verdict_back(returned(4, 4, signed_out=name("other"), likeness=far, crosses=True)) == "gradient"
    assert verdict_back(returned(4, 4, signed_out=name("other"), likeness=alike), name("end"), good) == "passed"
    assert verdict_back(returned(4, 4, signed_out=name("other"), likeness=far), name("end"), good) == "gradient"
    assert verdict_back(returned(5, 2, signed_out=name("other"), likeness=alike), name("end"), good) == "gradient"


def test_owed_by__is_what_receipts_and_records_say() -> None:
    path = [replicas[0] for replicas in STAGES]
    record = scenes.loss_record(path, 7, 4_000_000)
    evidence = JoinedEvidence((Witnessed(record, tuple(one.peer_id for one in path)),), {}, {}, {})
    costs = tuple(range(1, 1 + len(path)))
    assert work_of_pairs(evidence, costs) == {(one.peer_id, n): 1 + n for n, one in enumerate(path)}
    first, middle, last = (owed_by(one.peer_id, stage, evidence, RUN)[0] for stage, one in enumerate(path))
    assert first.in_digest == record.payload.microbatch.digest(RUN)
    assert (middle.in_digest, last.in_digest) == (first.out_digest, middle.out_digest)
    assert (last.out_digest, last.loss_micronats) == (record.digest, 4_000_000)
    assert [one.caller for one in (first, middle, last)] == [None, path[0].peer_id, path[1].peer_id]
    assert {one.record for one in (first, middle, last)} == {record.digest}
    assert owed_by(path[0].peer_id, 1, evidence, RUN) == []


def log_of(*entries: Forward | Backward | InnerStep) -> WorkLog:
    log = WorkLog()
    for entry in entries:
        log.append(entry)
    return log


def forward(counter: int) -> Forward:
    return Forward(microbatch=microbatch(counter), in_digest=name("in", counter))


def there_and_back(count: int, *, loss_records: bool = False) -> WorkLog:
    """Return a log that bears out what is owed, one step for each microbatch."""
    log = WorkLog()
    for n in range(count):
        back = name("out", n) if loss_records else name("gradient", n)
        log.append(Backward(forward=log.append(forward(n)), in_digest=back))
        log.append(InnerStep(number=n))
    return log


def read(log: WorkLog, work: Sequence[Owed]) -> str:
    found = read_log(log, work)
    return found.reason if found.replay == "failed" else found.replay


def test_read_log__lets_an_eighth_be_missing_of_much() -> None:
    """Whoever commits while its merge goes on leaves out its last segment."""
    log = there_and_back(700)
    assert read(log, owed(800)) == "not-drawn"
    assert read(log, owed(801)) == "no-forward"


@pytest.mark.parametrize("loss", [None, 4_000_000], ids=["middle", "last"])
def test_read_log__lets_only_so_many_microbatches_cross_an_epochs_ends(loss: int | None) -> None:
    log = there_and_back(MANY, loss_records=loss is not None)
    assert read(log, owed(MANY + MAX_CROSSING, loss)) == "not-drawn"
    assert read(log, owed(MANY + MAX_CROSSING + 1, loss)) == "no-forward"


def test_read_log__names_skipped_backwards() -> None:
    assert read(log_of(*(forward(n) for n in range(MANY))), owed()) == "no-backward"


def test_read_log__wants_the_last_stage_to_go_back_through_the_record_it_signed() -> None:
    assert read(there_and_back(MANY), owed(loss=4_000_000)) == "no-backward"


def test_judged_forwards__are_those_of_the_segment_that_ran_once() -> None:
    again = forward(3).model_copy(update={"again": True})
    log = log_of(forward(0), forward(1), forward(1), forward(2), again, forward(4), forward(5))
    judged = judged_forwards(log, Segment(1, 1, 6), owed(5))
    assert {position: one.microbatch.counter for position, one in judged.items()} == {3: 2, 5: 4}


def test_judged_backwards__are_those_of_the_segment_whose_forwards_ran_once() -> None:
    again = forward(3).model_copy(update={"again": True})
    forwards = [forward(0), forward(1), forward(1), forward(2), again]
    log = log_of(*forwards, *(Backward(forward=n, in_digest=name("g")) for n in range(5)), forward(4))
    judged = judged_backwards(log, Segment(1, 5, 10), owed(5))
    assert {position: one.microbatch.counter for position, one in judged.items()} == {5: 0, 8: 2}


def test_check_log__names_another_log_and_steps_out_of_time() -> None:
    back = Backward(forward=0, in_digest=name("gradient"))
    good = log_of(forward(0), back, InnerStep(number=0))
    assert check_log(good, commitment(good), 1, 16) == "none"
    assert check_log(good, commitment(), 1, 16) == "log-root"
    assert check_log(good, commitment(good), 2, 16) == "log-steps"
    late = log_of(forward(0), back, forward(1))
    assert check_log(late, commitment(late), 1, 16) == "log-steps"


def test_check_log__wants_the_cuts_that_follow_from_the_log() -> None:
    log = there_and_back(20)
    said = {count: check_log(log, commitment(log, count), 1, 16) for count in (4, 5, 9, 10, 11)}
    assert {count for count, wrong in said.items() if wrong == "none"} == {5, 10}
    assert set(said.values()) == {"none", "log-cuts"}
    assert check_log(log, commitment(log), 1, 1) == "none"


def test_check_log__bounds_what_runs_again_and_again() -> None:
    """What runs again is not judged, and of what runs twice it is not known which one counts."""
    for copies, again, wrong in ((MAX_AGAIN, True, "log-again"), (MAX_CROSSING, False, "log-repeated")):
        one = forward(0).model_copy(update={"again": again})
        fits, more = log_of(*(one,) * (copies + (not again))), log_of(*(one,) * (copies + 1 + (not again)))
        assert check_log(fits, commitment(fits), 1, 16) == "none"
        assert check_log(more, commitment(more), 1, 16) == wrong


def test_check_log__bounds_the_graphs_of_a_replay() -> None:
    entries: list[Forward | Backward | InnerStep] = [forward(n) for n in range(MAX_OPEN + 1)]
    never = log_of(*entries)
    assert check_log(never, commitment(never), 100, 16) == "none"
    all_back = log_of(*entries, *(Backward(forward=n, in_digest=name("g")) for n in range(MAX_OPEN + 1)))
    assert check_log(all_back, commitment(all_back), 100, 16) == "log-open"


def test_worse__a_failure_is_not_undone_by_a_pass() -> None:
    assert worse("passed", "failed") == worse("failed", "passed") == "failed"
    assert worse("not-drawn", "passed") == "passed"
    assert worse("passed", "no-evidence") == "no-evidence"
