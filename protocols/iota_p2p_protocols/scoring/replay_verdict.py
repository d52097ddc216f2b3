"""What a replay shows: does the work that a peer committed to bear out the records it is in?

The replay starts from the peer's own checkpoint and does what its log says. On the same platform the same bytes come
out again, but for a last bit now and then, as where data lies in memory can decide how a sum is rounded; whether
platforms are the same shows in the outputs themselves. Between platforms what comes out must only be alike.
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
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import Backward, InnerStep, WorkLog

# Records that need not be borne out: a peer has eight microbatches under way on a stage when an epoch begins, and eight
# when it ends, and parts of those stand in the logs of the epochs beside it.
MAX_CROSSING = 16
# Graphs that a replay holds at a time, at most: twice what a peer has under way.
MAX_OPEN = 16
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
    "log-steps",
    "log-open",
    "no-forward",
    "no-backward",
    "output",
    "loss",
    "end-state",
    "not-replayable",
]


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
    """

    microbatch: MicrobatchId
    in_digest: bytes
    out_digest: bytes
    loss_micronats: int | None


@dataclass(frozen=True, slots=True)
class Redone:
    """A forward pass of the log, done again.

    Attributes:
        microbatch, in_digest: as in the log.
        out_digest: digest of what came out; None in the last stage.
        loss_micronats: in the last stage the loss, else None.
        backward: what the log's backward of it worked on; None without one.
        likeness: to what the peer sent, where the digests differ and that could be had.
    """

    microbatch: MicrobatchId
    in_digest: bytes
    out_digest: bytes | None
    loss_micronats: int | None
    backward: bytes | None
    likeness: Likeness | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to.

    Attributes:
        redone: every forward of the log.
        end_digest: SHA-256 of the checkpoint it ended with.
        likeness: of the update that the weights got to the one of the peer's own end; None if that was not had.
    """

    redone: Sequence[Redone]
    end_digest: bytes
    likeness: Likeness | None = None


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
        owed.append(Owed(record.microbatch, chain_end(chain[:stage], microbatch), out, loss))
    return owed


def check_log(log: WorkLog, work: WorkCommitment, microbatches_per_step: int) -> Reason:
    """Return what is wrong with a log before anything of it is done again; "none" if nothing."""
    if log.root != work.log_root or len(log) != work.num_entries:
        return "log-root"
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
    return "none" if summed < microbatches_per_step else "log-steps"


def judge(work: WorkCommitment, owed: Iterable[Owed], replayed: Replayed) -> Verdict:
    """Return the verdict on work whose log holds by `check_log`."""
    attempts: dict[tuple[MicrobatchId, bytes], list[Redone]] = {}
    for redone in replayed.redone:
        attempts.setdefault((redone.microbatch, redone.in_digest), []).append(redone)
    pairs = [(one, attempts.get((one.microbatch, one.in_digest), [])) for one in owed]
    exact = replayed.end_digest == work.end_digest or _same_platform(pairs)
    found: Counter[Reason] = Counter()
    for one, done in pairs:
        reason = _why_not(one, done, exact=exact)
        if reason != "none":
            found[reason] += 1
    findings = tuple(sorted(found.items()))
    if found.total() > MAX_CROSSING:
        return Verdict("failed", max(sorted(found), key=found.__getitem__), findings)
    if replayed.end_digest != work.end_digest and (
        replayed.likeness is None or not replayed.likeness.holds(LEAST_UPDATE_RATIO)
    ):
        return Verdict("failed", "end-state", findings)
    return Verdict("passed", findings=findings)


def _same_platform(pairs: Sequence[tuple[Owed, list[Redone]]]) -> bool:
    """Return whether most outputs are the same bytes; a few may be so by chance."""
    compared = [any(one.out_digest == each.out_digest for each in done) for one, done in pairs if done]
    return 2 * sum(compared) > len(compared)


def _why_not(one: Owed, attempts: Sequence[Redone], *, exact: bool) -> Reason:
    """Return why no attempt bears out what a peer owes, or "none"."""
    if not attempts:
        return "no-forward"
    alike = [each for each in attempts if _is_alike(one, each, exact=exact)]
    if not alike:
        return "output" if one.loss_micronats is None else "loss"
    if one.loss_micronats is not None:
        alike = [each for each in alike if each.backward == one.out_digest]
    return "none" if any(each.backward is not None for each in alike) else "no-backward"


def _is_alike(one: Owed, redone: Redone, *, exact: bool) -> bool:
    if one.loss_micronats is not None:
        loss = redone.loss_micronats
        return loss is not None and abs(loss - one.loss_micronats) <= LOSS_TOLERANCE_MICRONATS
    if redone.out_digest == one.out_digest:
        return True
    if redone.likeness is None:
        return False
    return redone.likeness.holds(*((SAME_PLATFORM,) * 2 if exact else (LEAST_OUTPUT_RATIO, LEAST_COSINE)))
