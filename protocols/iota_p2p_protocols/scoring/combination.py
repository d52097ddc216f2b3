"""From everything known of a peer in an epoch to its score, in integers.

    score = work * quality / 10^6,   quality = the smallest component

Work is what signed chains prove; every component is between 0 and 10^6 and can only take away. Nothing signed is ever
multiplied by anything signed: two faults once paid out elsewhere (facts, 3). The smallest component is kept as the
reason, so that a zero explains itself.
"""

from typing import Annotated, Literal

from pydantic import Field

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_protocols.advert import MAX_STAGES
from iota_p2p_protocols.message import Count, Message
from iota_p2p_protocols.scoring.fast_checks import PPM

_TAG = "iota-p2p/scoring-rules/1"

Ppm = Annotated[int, Field(ge=0, le=PPM)]
Micronats = Annotated[int, Field(ge=-(10**9), le=10**9)]  # a thousand nats either way
Replay = Literal["not-drawn", "passed", "failed", "no-evidence"]
Component = Literal["presence", "synchronisation", "clasp", "replay", "faults", "evidence", "none"]


class ScoringRules(Message):
    """Everything a score depends on besides evidence; a run's spec fixes it, and every record names its digest.

    Attributes:
        costs_ppm: what each stage costs, of the whole model's cost.
        seats: how many validators an epoch wants.
        pot: units that an epoch pays out.
        clasp_tolerance_ppm: harm that nobody is blamed for, of the mean loss: below it, drawing and data decide.
        clasp_ruin_ppm: harm from which on nothing is paid; in between it falls in a straight line.
        least_records: fewer records say nothing about a peer's harm.
        warmup_epochs: in the first epochs nobody is blamed for harm: replicas that never merged differ by much.
        pair_every: of so many counters a source visits one's data twice; 0 for no second visits.
    """

    costs_ppm: Annotated[tuple[Ppm, ...], Field(min_length=1, max_length=MAX_STAGES)]
    seats: Annotated[int, Field(gt=0, le=64)] = 16
    pot: Annotated[int, Field(ge=0, le=2**60)] = 1_000_000
    clasp_tolerance_ppm: Ppm = 10_000
    clasp_ruin_ppm: Ppm = 30_000
    least_records: Count = 8
    warmup_epochs: Count = 1
    pair_every: Count = 0

    def to_bytes(self) -> bytes:
        """Return the canonical bytes, as a ledger keeps them."""
        return canonical.encode(self.to_fields())

    @classmethod
    def from_bytes(cls, data: bytes) -> "ScoringRules":
        """Return the rules in canonical bytes; raises RemoteProtocolError if there are none."""
        return cls.from_fields(canonical.decode(data))

    def digest(self) -> Digest:
        """Return the digest that records name."""
        return tagged_digest(_TAG, self.to_bytes())


class Findings(Message):
    """What is known of one peer in one epoch.

    Attributes:
        work: tokens times relative cost of the stages, from checked chains.
        num_records: how many of them there are.
        clasp_effect, clasp_low, clasp_high: the contrast of its worst stage and its interval, millionths of a nat.
        replay: what replaying its work showed.
        faults: proofs against it in this epoch.
        evidence_ppm: of the records it owed, how many it showed.
        presence_ppm, synchronisation_ppm: see `fast_checks`.
    """

    work: Count
    num_records: Count
    clasp_effect: Micronats
    clasp_low: Micronats
    clasp_high: Micronats
    replay: Replay
    faults: Annotated[int, Field(ge=0, le=2**16)]
    evidence_ppm: Ppm
    presence_ppm: Ppm
    synchronisation_ppm: Ppm


class Score(Message):
    """What it comes to.

    Attributes:
        score: in units of work.
        quality_ppm: the smallest component.
        reason: which one that is; "none" where nothing is amiss.
    """

    score: Count
    quality_ppm: Ppm
    reason: Component


def combine(findings: Findings, epoch: int, mean_loss_micronats: int, rules: ScoringRules) -> Score:
    """Return a peer's score.

    Args:
        findings: about the peer.
        epoch: which epoch's.
        mean_loss_micronats: of the epoch's records, what harm is measured against.
        rules: the run's.
    """
    components: dict[Component, int] = {
        "faults": 0 if findings.faults else PPM,
        "replay": 0 if findings.replay in ("failed", "no-evidence") else PPM,
        "evidence": findings.evidence_ppm,
        "clasp": PPM if epoch < rules.warmup_epochs else clasp_ppm(findings, mean_loss_micronats, rules),
        "synchronisation": findings.synchronisation_ppm,
        "presence": findings.presence_ppm,
    }
    reason = min(components, key=components.__getitem__)  # of equals the first, the gravest
    quality = components[reason]
    return Score(score=findings.work * quality // PPM, quality_ppm=quality, reason="none" if quality == PPM else reason)


def clasp_ppm(findings: Findings, mean_loss_micronats: int, rules: ScoringRules) -> int:
    """Return the component of harm: what is certain of it, the interval's lower bound, against what is tolerated."""
    if findings.num_records < rules.least_records or mean_loss_micronats <= 0:
        return PPM
    harm_ppm = max(0, findings.clasp_low) * PPM // mean_loss_micronats
    if harm_ppm <= rules.clasp_tolerance_ppm:
        return PPM
    span = max(1, rules.clasp_ruin_ppm - rules.clasp_tolerance_ppm)
    return max(0, PPM - (harm_ppm - rules.clasp_tolerance_ppm) * PPM // span)
