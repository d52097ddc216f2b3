"""What a replay shows: does the work that a peer committed to bear out the records it is in?

Two looks. The whole log is read, which costs next to nothing: is everything in it that records say was done? Then one
segment is done again, from the checkpoint that the peer committed to. On the same platform the same bytes come out,
but for a last bit now and then, as where data lies in memory can decide how a sum is rounded; whether platforms are the
same shows in the outputs themselves. Between platforms what comes out must only be alike.

What goes forward is in the records that everybody has. What goes back is not: the gradient's digest stands in the
receipt that only its caller got, which is asked for it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.chain import chain_end, open_chain
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.scoring.combination import Replay
from iota_p2p_protocols.scoring.evidence import JoinedEvidence
from iota_p2p_protocols.scoring.segments import Segment, segments_committed
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import Backward, Forward, InnerStep, WorkLog

# Records that need not be borne out: a peer has eight microbatches under way on a stage when an epoch begins, and eight
# when it ends, and parts of those stand in the logs of the epochs beside it.
MAX_CROSSING = 16
# Likewise, of all of a peer's: who commits while its merge goes on does so to its log without the last segment, and
# with 16 states kept at least eight lie behind it.
MOST_CROSSING = 1 / 8
# Forwards that an epoch runs again, at most: those under way when it began.
MAX_AGAIN = 8
# Graphs that a replay holds at a time, at most: twice what a peer has under way.
MAX_OPEN = 16
# Outputs of a segment that need not come out: one bit that a cosmic ray turned. A lie that is worth telling is in more.
MAX_ODD = 1
# Forwards that run more than once, as callers die or lose patience; of those it cannot be told which one was sent.
MOST_REPEATED = 0.25
# What IOTA's validators ask of activations and weights (facts, 1).
LEAST_OUTPUT_RATIO = 0.8
LEAST_UPDATE_RATIO = 0.7
LEAST_COSINE = 0.9
# What an output of the same platform must reach where its bytes differ: a last bit moves neither by a millionth.
SAME_PLATFORM = 0.9999
# A hundredth of a nat: rounding between platforms moves a loss by less, and a lie of less is worth nothing.
LOSS_TOLERANCE_MICRONATS = 10_000

Reason = Literal[
    "none",
    "log-root",
    "log-cuts",
    "log-steps",
    "log-open",
    "log-again",
    "log-repeated",
    "start-state",
    "no-forward",
    "no-backward",
    "output",
    "loss",
    "gradient",
    "end-state",
    "not-replayable",
]
_Key = tuple[MicrobatchId, bytes]  # a microbatch and the digest of the payload it came with


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two vectors are: the smaller norm over the larger, and the cosine between them."""

    norm_ratio: float
    cosine: float

    def holds(self, least_ratio: float, least_cosine: float = LEAST_COSINE) -> bool:
        """Return whether that is alike enough; NaN is not."""
        return self.norm_ratio >= least_ratio and self.cosine > least_cosine


@dataclass(frozen=True, slots=True)
class Owed:
    """What a record says that a peer did on a stage.

    Attributes:
        microbatch: with which microbatch.
        in_digest: digest of the payload it worked on.
        out_digest: digest of what it sent; in the last stage that of the loss record.
        loss_micronats: in the last stage the loss it signed, else None.
        record: digest of the record.
        caller: who did the stage before, and got its gradient back; None in stage 0.
    """

    microbatch: MicrobatchId
    in_digest: bytes
    out_digest: bytes
    loss_micronats: int | None
    record: bytes
    caller: PeerId | None


@dataclass(frozen=True, slots=True)
class Redone:
    """A forward pass of the segment that a record is about, done again.

    Attributes:
        owed: what the record says of it.
        out_digest: digest of what came out; None in the last stage.
        loss_micronats: in the last stage the loss, else None.
        likeness: to what the peer sent, where the digests differ and that could be had.
    """

    owed: Owed
    out_digest: bytes | None
    loss_micronats: int | None
    likeness: Likeness | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """A backward pass of the segment whose receipt its caller has shown, done again.

    Attributes:
        in_digest: digest of the gradient that came, by the log.
        out_digest: digest of what came out.
        signed_in, signed_out: what the receipt says of both.
        crosses: whether its forward was before the segment: the weights that went with a forward of which nobody
            expected a backward any more are only nearly those.
        likeness: to what the peer sent, where the digests differ and that could be had.
    """

    in_digest: bytes
    out_digest: bytes
    signed_in: bytes
    signed_out: bytes
    crosses: bool = False
    likeness: Likeness | None = None

    @property
    def is_same(self) -> bool:
        """Return whether the receipt says what the log says, and what came out."""
        return (self.signed_in, self.signed_out) == (self.in_digest, self.out_digest)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the replay of a segment came to.

    Attributes:
        redone: every forward to be judged.
        end_digest: SHA-256 of the checkpoint it ended with.
        likeness: of the update that the weights got to the one that the peer's own next checkpoint has; None if that
            was not had.
        returned: every backward to be judged.
    """

    redone: Sequence[Redone]
    end_digest: bytes
    likeness: Likeness | None = None
    returned: Sequence[Returned] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it comes to, and why; `findings` counts the records that are not borne out, by reason."""

    replay: Replay
    reason: Reason = "none"
    findings: tuple[tuple[Reason, int], ...] = ()


_FROM_WORST: tuple[Replay, ...] = ("failed", "no-evidence", "passed", "not-drawn")


def worse(one: Replay, other: Replay) -> Replay:
    """Return what two replays of one peer say of it together."""
    return min(one, other, key=_FROM_WORST.index)


def owed_by(peer_id: PeerId, stage: int, evidence: JoinedEvidence, run_id: bytes) -> list[Owed]:
    """Return everything that the evidence says a peer did on a stage."""
    owed = []
    for one in evidence.records:
        if one.pathway[stage] != peer_id:
            continue
        record = one.record.payload
        microbatch = record.microbatch.digest(run_id)
        chain = open_chain(record.chain, microbatch)
        is_last = stage == len(chain)
        out = one.record.digest if is_last else chain[stage].payload.out_digest
        loss = record.loss_micronats if is_last else None
        caller = one.pathway[stage - 1] if stage else None
        came = chain_end(chain[:stage], microbatch)
        owed.append(Owed(record.microbatch, came, out, loss, one.record.digest, caller))
    return owed


def check_log(log: WorkLog, work: WorkCommitment, microbatches_per_step: int, most: int) -> Reason:
    """Return what is wrong with a log by itself; "none" if nothing.

    Args:
        log: what the peer shows.
        work: what it committed to.
        microbatches_per_step: the run's.
        most: segments that a log of the stage may have.
    """
    if log.root != work.log_root or len(log) != work.num_entries:
        return "log-root"
    if not segments_committed(log, most, work.num_segments):
        return "log-cuts"
    goes_back = {entry.forward for entry in log.entries if isinstance(entry, Backward)}
    summed = num_open = 0
    for position, entry in enumerate(log.entries):
        num_open += position in goes_back
        if num_open > MAX_OPEN:
            return "log-open"
        if isinstance(entry, Backward):
            summed += 1
            num_open -= 1
        elif isinstance(entry, InnerStep):
            if summed != microbatches_per_step:
                return "log-steps"
            summed = 0
    return "log-steps" if summed >= microbatches_per_step else _check_forwards(log)


def _check_forwards(log: WorkLog) -> Reason:
    forwards = [entry for entry in log.entries if isinstance(entry, Forward)]
    if sum(one.again for one in forwards) > MAX_AGAIN:
        return "log-again"
    num_repeated = sum(count - 1 for count in _attempts(log).values())
    return "log-repeated" if num_repeated > max(MAX_CROSSING, MOST_REPEATED * len(forwards)) else "none"


def _attempts(log: WorkLog) -> Counter[_Key]:
    forwards = (entry for entry in log.entries if isinstance(entry, Forward) and not entry.again)
    return Counter((one.microbatch, one.in_digest) for one in forwards)


def read_log(log: WorkLog, owed: Iterable[Owed]) -> Verdict:
    """Return what the log by itself says of a peer's records: "failed", or "not-drawn" since nothing was done again."""
    backs = {entry.forward: entry.in_digest for entry in log.entries if isinstance(entry, Backward)}
    went_back: dict[_Key, list[bytes | None]] = {}
    for position, entry in enumerate(log.entries):
        if isinstance(entry, Forward):
            went_back.setdefault((entry.microbatch, entry.in_digest), []).append(backs.get(position))
    found: Counter[Reason] = Counter()
    owed = tuple(owed)
    for one in owed:
        through = went_back.get((one.microbatch, one.in_digest))
        if through is None:
            found["no-forward"] += 1
        elif all(name is None for name in through) or (
            one.loss_micronats is not None and one.out_digest not in through
        ):
            found["no-backward"] += 1
    if found.total() <= max(MAX_CROSSING, MOST_CROSSING * len(owed)):
        return Verdict("not-drawn", findings=tuple(sorted(found.items())))
    return Verdict("failed", max(sorted(found), key=found.__getitem__), tuple(sorted(found.items())))


def judged_forwards(log: WorkLog, segment: Segment, owed: Iterable[Owed]) -> dict[int, Owed]:
    """Return the forwards of a segment that must come to what records say, by position.

    Left out are those that run again, and those of which there are several: any of them may be what was sent.
    """
    judged = _borne_out(log, segment.end, owed)
    return {position: one for position, one in judged.items() if position >= segment.first}


def judged_backwards(log: WorkLog, segment: Segment, owed: Iterable[Owed]) -> dict[int, Owed]:
    """Return the backwards of a segment whose gradients must be those that receipts say were sent, by position.

    They are those of forwards that would be judged, in this segment or before it.
    """
    judged = _borne_out(log, segment.end, owed)
    some = enumerate(log.entries[segment.first : segment.end], segment.first)
    return {n: judged[one.forward] for n, one in some if isinstance(one, Backward) and one.forward in judged}


def _borne_out(log: WorkLog, end: int, owed: Iterable[Owed]) -> dict[int, Owed]:
    """Return the forwards up to a position that records are about, without a doubt which record."""
    attempts = _attempts(log)
    by_key = {(one.microbatch, one.in_digest): one for one in owed}
    found = {}
    for position, entry in enumerate(log.entries[:end]):
        if isinstance(entry, Forward) and not entry.again:
            key = (entry.microbatch, entry.in_digest)
            if key in by_key and attempts[key] == 1:
                found[position] = by_key[key]
    return found


def judge(end_digest: bytes, replayed: Replayed) -> Verdict:
    """Return the verdict on a segment whose own next checkpoint has that digest."""
    same_end = replayed.end_digest == end_digest
    exact = same_end or _same_platform(replayed)
    odd = [one for one in replayed.redone if not _is_alike(one, exact=exact)]
    reason: Reason = "loss" if odd and odd[0].owed.loss_micronats is not None else "output"
    num_wrong = sum(not _is_returned(one, exact=exact) for one in replayed.returned)
    counts: tuple[tuple[Reason, int, int], ...] = (
        (reason, len(odd), len(replayed.redone)),
        ("gradient", num_wrong, len(replayed.returned)),
    )
    findings = tuple((name, count) for name, count, _ in counts if count)
    for name, count, of in counts:
        if count > MAX_ODD or (count and count == of):
            return Verdict("failed", name, findings)
    if not same_end and (replayed.likeness is None or not replayed.likeness.holds(LEAST_UPDATE_RATIO)):
        return Verdict("failed", "end-state", findings)
    return Verdict("passed", findings=findings)


def _same_platform(replayed: Replayed) -> bool:
    """Return whether most of what was sent are the same bytes; some may be so by chance."""
    same = [one.out_digest == one.owed.out_digest for one in replayed.redone if one.out_digest is not None]
    same += [one.is_same for one in replayed.returned]
    return 2 * sum(same) > len(same)


def _is_alike(one: Redone, *, exact: bool) -> bool:
    if one.owed.loss_micronats is not None:
        loss = one.loss_micronats
        return loss is not None and abs(loss - one.owed.loss_micronats) <= LOSS_TOLERANCE_MICRONATS
    if one.out_digest == one.owed.out_digest:
        return True
    return _holds(one.likeness, exact=exact)


def _is_returned(one: Returned, *, exact: bool) -> bool:
    if one.signed_in != one.in_digest:
        return False
    return one.is_same or _holds(one.likeness, exact=exact and not one.crosses)


def _holds(likeness: Likeness | None, *, exact: bool) -> bool:
    if likeness is None:
        return False
    return likeness.holds(*((SAME_PLATFORM,) * 2 if exact else (LEAST_OUTPUT_RATIO, LEAST_COSINE)))
