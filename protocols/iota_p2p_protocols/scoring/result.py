"""From several validators' records of an epoch to one result: scores, payouts, and a quorum's signatures.

For every peer the weighted lower median over all records of the result, a missing row counting as 0: whoever holds
less than half of the weight can neither raise nor lower it beyond what somebody honest said. The pot is shared in
proportion to the scores, in whole units, the remainder to the largest fractions, then by peer id.

A result is proposed by naming the records it was computed from; whoever has the same records gets the same bytes, so
members countersign by computing it themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from iota_p2p_crypto.domains import RESULT, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError, LocalProtocolError
from iota_p2p_protocols.message import Count, DigestField, PeerIdField, SignedMessage
from iota_p2p_protocols.scoring.score_record import MAX_ROWS, ScoreRecord

# Epochs from one whose work is scored to the one whose seed its records' outputs go into: they are revealed one epoch
# after the work, when the seed of the epoch after that is still open.
SEED_LAG = 2
MAX_RECORDS = 64  # records of one result: a committee of twenty with room for later rounds
MAX_POT = 2**60  # units; with MAX_ROWS shares no product below overflows what canonical integers hold


class EpochResult(SignedMessage):
    """What the validators agree on; with a quorum's signatures it is certified.

    Attributes:
        epoch: whose work was scored.
        seed: that of the epoch SEED_LAG later, from the outputs that these records reveal.
        records: digests of the score records it follows from, ascending.
        pot: units shared out.
        payouts: per peer its score and its share of the pot, ascending by peer id; scores of 0 are left out.
    """

    domain: ClassVar[Domain] = RESULT
    max_lifetime_s: ClassVar[int] = 30 * 86_400  # as news; as a document it never dies

    epoch: Count
    seed: DigestField
    records: Annotated[tuple[DigestField, ...], Field(min_length=1, max_length=MAX_RECORDS)]
    pot: Annotated[int, Field(ge=0, le=MAX_POT)]
    payouts: Annotated[tuple[tuple[PeerIdField, Count, Count], ...], Field(max_length=MAX_ROWS)]

    @model_validator(mode="after")
    def _check_table(self) -> Self:
        if any(low >= high for low, high in pairwise(self.records)):
            raise ValueError("records must be distinct and ascending")
        ids = [peer_id_to_bytes(PeerId(peer_id)) for peer_id, _, _ in self.payouts]
        if any(low >= high for low, high in pairwise(ids)):
            raise ValueError("payouts must be distinct and ascending by peer")
        if sum(share for _, _, share in self.payouts) not in (0, self.pot):
            raise ValueError("payouts must add up to the pot")
        return self


@dataclass(frozen=True, slots=True)
class CertifiedResult:
    """A result with a quorum behind it; `open_certified_result` builds one.

    Attributes:
        result: the result and all its signatures.
        validators: those of the signers whose records it rests on.
        silent: validators of the epoch of which no record was known; see `silence`.
    """

    result: Verified[EpochResult]
    validators: tuple[PeerId, ...]
    silent: tuple[PeerId, ...] = ()

    @property
    def payload(self) -> EpochResult:
        """What was certified."""
        return self.result.payload


def consensus_scores(records: Sequence[Verified[ScoreRecord]], weights: Mapping[PeerId, int]) -> dict[PeerId, int]:
    """Return each peer's weighted lower median score; peers whose median is 0 are left out.

    Args:
        records: of one epoch, one per validator, checked.
        weights: each validator's capped stake.
    """
    validators = [record.signer for record in records]
    if len(set(validators)) != len(validators) or any(weights.get(one, 0) <= 0 for one in validators):
        raise LocalProtocolError("expected one record from each of several candidates, got others")
    tables = [
        (weights[record.signer], {PeerId(row.peer_id): row.score.score for row in record.payload.rows})
        for record in records
    ]
    peers = {peer_id for _, table in tables for peer_id in table}
    medians = {}
    for peer_id in sorted(peers, key=peer_id_to_bytes):
        # A validator never scores itself: where it is the one scored, the others decide.
        said = [
            (table.get(peer_id, 0), weight)
            for (weight, table), by in zip(tables, validators, strict=True)
            if by != peer_id
        ]
        medians[peer_id] = weighted_lower_median(said)
    return {peer_id: score for peer_id, score in medians.items() if score}


def weighted_lower_median(values: Sequence[tuple[int, int]]) -> int:
    """Return the smallest value at which half of the weight is reached, from (value, weight) pairs; 0 of none."""
    half, reached = sum(weight for _, weight in values), 0
    for value, weight in sorted(values):
        reached += 2 * weight
        if reached >= half:
            return value
    return 0


def share_pot(scores: Mapping[PeerId, int], pot: int) -> dict[PeerId, int]:
    """Return each peer's share: in proportion, whole, and exactly the pot in sum (nothing if nobody scored)."""
    total = sum(scores.values())
    if not total:
        return {}
    if not 0 <= pot <= MAX_POT or min(scores.values()) < 0:
        raise LocalProtocolError(f"expected a pot up to {MAX_POT} and no negative score, got {pot}")
    shares = {peer_id: pot * score // total for peer_id, score in scores.items()}
    left = pot - sum(shares.values())
    by_fraction = sorted(scores, key=lambda peer_id: (-(pot * scores[peer_id] % total), peer_id_to_bytes(peer_id)))
    for peer_id in by_fraction[:left]:
        shares[peer_id] += 1
    return shares


def payouts_of(
    records: Sequence[Verified[ScoreRecord]], weights: Mapping[PeerId, int], pot: int
) -> tuple[tuple[PeerId, int, int], ...]:
    """Return a result's table."""
    scores = consensus_scores(records, weights)
    shares = share_pot(scores, pot)
    return tuple((peer_id, scores[peer_id], shares[peer_id]) for peer_id in sorted(scores, key=peer_id_to_bytes))


def make_result(
    records: Sequence[Verified[ScoreRecord]], weights: Mapping[PeerId, int], seed: bytes, pot: int
) -> EpochResult:
    """Return the result that some records make; the same bytes for everybody who has them.

    Args:
        records: of one epoch, checked.
        weights: each validator's capped stake.
        seed: that of the epoch SEED_LAG later, from their outputs.
        pot: units to share out.
    """
    payload = records[0].payload
    issued_s = max(record.payload.issued_s for record in records)
    return EpochResult(
        run_id=payload.run_id,
        sequence=payload.epoch,
        issued_s=issued_s,
        expires_s=issued_s + EpochResult.max_lifetime_s,
        epoch=payload.epoch,
        seed=seed,
        records=tuple(sorted(record.digest for record in records)),
        pot=pot,
        payouts=payouts_of(records, weights, pot),
    )


def check_result(payload: EpochResult, records: Sequence[Verified[ScoreRecord]], weights: Mapping[PeerId, int]) -> None:
    """Check a result against the records it names; the electorate and its seed are checked by the caller.

    Raises:
        InvalidProofError: if it names others, or does not follow from them.
    """
    # [result-records] it names exactly these
    if payload.records != tuple(sorted(record.digest for record in records)):
        raise InvalidProofError("result-records", f"expected a result of these {len(records)} records, got another")
    if len({record.signer for record in records}) != len(records):
        raise InvalidProofError("result-records", "expected one record of each validator, got two of one")
    # [result-epoch] all are of its epoch
    if any(record.payload.epoch != payload.epoch for record in records):
        raise InvalidProofError("result-epoch", f"expected records of epoch {payload.epoch}, got others")
    # [result-payouts] and its table follows from them
    if payload.payouts != payouts_of(records, weights, payload.pot):
        raise InvalidProofError("result-payouts", "expected the payouts that follow from the records, got others")


def open_certified_result(
    result: Verified[EpochResult], records: Sequence[Verified[ScoreRecord]], quorum: int
) -> CertifiedResult:
    """Check that a quorum of the validators whose records a result names have signed it.

    Raises:
        InvalidProofError: if they are too few.
        InvalidSignatureError: if somebody else signed, too.
    """
    elected = {record.signer for record in records}
    # [result-signer] only its validators sign
    strangers = set(result.signers) - elected
    if strangers:
        raise InvalidSignatureError("result-signer", f"expected validators of the epoch, got {min(strangers)}")
    # [result-quorum] and enough of them
    if len(result.signers) < quorum:
        raise InvalidProofError("result-quorum", f"expected {quorum} validators, got {len(result.signers)}")
    return CertifiedResult(result, result.signers)
