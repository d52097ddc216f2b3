"""Score records: one validator's signed word on one epoch, with everything needed to argue about it.

A record is a table, one row per peer, of integers only. It names the evidence it rests on, the rules it follows and
the record before it, and it proves that its signer was elected. A validator signs one per epoch; two are an
`EquivocationProof` (equivocation.py). Spec: protocols/spec/scores.md.
"""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from iota_p2p_crypto.canonical import CanonicalValue
from iota_p2p_crypto.domains import SCORE, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import peer_id_to_bytes
from iota_p2p_protocols.errors import InvalidProofError, MalformedError
from iota_p2p_protocols.message import Count, DigestField, Message, PeerIdField, SignedMessage
from iota_p2p_protocols.scoring.combination import Findings, Score, ScoringRules, combine
from iota_p2p_protocols.scoring.election import ElectionProof

MAX_ROWS = 1000  # peers of one run; a row has up to 170 bytes
MAX_PROOFS = 256  # faults that one record names; 34 bytes each
MAX_EVIDENCE = 512  # holders of evidence that one validator looks at
GENESIS = bytes(32)  # what a validator's first record names as the one before


class ScoreRow(Message):
    """What a validator says of one peer.

    Attributes:
        peer_id: whom.
        findings: what it found.
        score: what that comes to by the rules.
    """

    peer_id: PeerIdField
    findings: Findings
    score: Score

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Validate a decoded list: the peer, then findings and score by position; raises MalformedError."""
        num_findings = len(Findings.model_fields)
        if type(fields) is not tuple or len(fields) != 1 + num_findings + len(Score.model_fields):
            raise MalformedError("score-row-form", f"expected a list of findings and a score, got {fields!r:.80}")
        found = dict(zip(Findings.model_fields, fields[1 : 1 + num_findings], strict=True))
        score = dict(zip(Score.model_fields, fields[1 + num_findings :], strict=True))
        return super().from_fields({"peer_id": fields[0], "findings": found, "score": score})

    def to_fields(self) -> CanonicalValue:
        """Return the row as the list that is signed: names would double its length."""
        return (self.peer_id, *self.findings.model_dump().values(), *self.score.model_dump().values())


class ScoreRecord(SignedMessage):
    """A validator's scores of an epoch.

    Attributes:
        epoch: whose work is scored.
        position: how many records it signed before.
        previous: digest of the record before; zeros for the first.
        election: why it may.
        evidence: digests of the evidence commitments it rests on, ascending.
        proofs: digests of the proofs of faults that its rows count, ascending.
        rules: digest of the scoring rules.
        software: name and version of what computed it.
        mean_loss_micronats: of the records in evidence.
        rows: one per peer, ascending by peer id.
    """

    domain: ClassVar[Domain] = SCORE
    max_lifetime_s: ClassVar[int] = 30 * 86_400  # as news; as a document it never dies

    epoch: Count
    position: Count
    previous: DigestField
    election: ElectionProof
    evidence: Annotated[tuple[DigestField, ...], Field(max_length=MAX_EVIDENCE)]
    proofs: Annotated[tuple[DigestField, ...], Field(max_length=MAX_PROOFS)]
    rules: DigestField
    software: Annotated[str, Field(max_length=64)]
    mean_loss_micronats: Count
    rows: Annotated[tuple[ScoreRow, ...], Field(max_length=MAX_ROWS)]

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Validate a decoded map whose rows are lists; raises MalformedError."""
        if type(fields) is not dict or type(fields.get("rows")) is not tuple:
            raise MalformedError("score-record-form", f"expected a map with rows, got {fields!r:.80}")
        if len(fields["rows"]) > MAX_ROWS:
            raise MalformedError("score-record-rows", f"expected at most {MAX_ROWS} rows, got {len(fields['rows'])}")
        rows = tuple(ScoreRow.from_fields(row) for row in fields["rows"])
        return super().from_fields({**fields, "rows": rows})

    def to_fields(self) -> CanonicalValue:
        """Return the map that is signed."""
        return {**self.model_dump(exclude={"rows"}), "rows": tuple(row.to_fields() for row in self.rows)}

    @model_validator(mode="after")
    def _check_order(self) -> "ScoreRecord":
        if any(low >= high for names in (self.evidence, self.proofs) for low, high in pairwise(names)):
            raise ValueError("evidence and proofs must be distinct and ascending")
        ids = [peer_id_to_bytes(row.peer_id) for row in self.rows]
        if any(low >= high for low, high in pairwise(ids)):
            raise ValueError("rows must be distinct and ascending by peer")
        return self


def check_record(record: Verified[ScoreRecord], rules: ScoringRules) -> None:
    """Check what a record says of itself: the rules, its own sums, and that nobody scores himself.

    Whether its signer was elected needs the electorate (`verify_election`); whether the findings are true needs the
    evidence.

    Raises:
        InvalidProofError: naming the first thing that does not hold.
    """
    payload = record.payload
    # [score-rules] it follows the run's rules
    if payload.rules != rules.digest():
        raise InvalidProofError("score-rules", f"expected rules {rules.digest().hex()[:16]}, got others")
    # [score-first] the first record has none before it, the others have
    if (payload.position == 0) != (payload.previous == GENESIS):
        raise InvalidProofError(
            "score-first", f"expected a predecessor from record 1 on, got record {payload.position}"
        )
    for row in payload.rows:
        # [score-self] nobody scores himself
        if row.peer_id == record.signer:
            raise InvalidProofError("score-self", f"expected scores of others, got {record.signer}'s own")
        # [score-sum] every score follows from its findings
        expected = combine(row.findings, payload.epoch, payload.mean_loss_micronats, rules)
        if row.score != expected:
            raise InvalidProofError(
                "score-sum", f"expected {expected.score} for {row.peer_id} ({expected.reason}), got {row.score.score}"
            )


def check_successor(record: Verified[ScoreRecord], before: Verified[ScoreRecord]) -> None:
    """Check that a record continues its signer's chain.

    Raises:
        InvalidProofError: if it does not follow, or goes back in time.
    """
    payload, last = record.payload, before.payload
    # [score-chain] it names the record before, whose number and epoch are lower
    if (payload.previous, payload.position) != (before.digest, last.position + 1):
        raise InvalidProofError(
            "score-chain", f"expected record {last.position + 1} after {before.digest.hex()[:16]}, got another link"
        )
    if payload.epoch <= last.epoch:
        raise InvalidProofError("score-epoch", f"expected an epoch after {last.epoch}, got {payload.epoch}")
