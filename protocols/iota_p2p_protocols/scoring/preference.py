"""Preferences: which records of an epoch a validator would have a result made of, round by round.

Validators vote once for a result, for ever, so nobody votes before it is clear what the others will vote for: in each
round everybody says what it prefers, and votes for what a quorum prefers in one round. Who prefers two things in one
round is convicted by both, and has spoilt no more than that round. Spec: protocols/spec/scores.md.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Self, TypeAlias

from pydantic import Field, model_validator

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.domains import PREFERENCE, Domain
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.message import Count, DigestField, SignedMessage
from iota_p2p_protocols.scoring.result import MAX_RECORDS

# Each has another proposer: three liars in a row are drawn once in 27 ballots if a third of all validators lie.
MAX_ROUNDS = 3

RecordNames: TypeAlias = tuple[bytes, ...]  # digests of records, ascending


class Preference(SignedMessage):
    """What a validator prefers in one round.

    Attributes:
        epoch: whose result.
        round: from 0.
        records: digests of the records it would make it of, ascending.
    """

    domain: ClassVar[Domain] = PREFERENCE
    max_lifetime_s: ClassVar[int] = 86_400  # a ballot lasts seconds; the proof of two needs no clock

    epoch: Count
    round: Annotated[int, Field(ge=0, lt=MAX_ROUNDS)]
    records: Annotated[tuple[DigestField, ...], Field(min_length=1, max_length=MAX_RECORDS)]

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if any(low >= high for low, high in pairwise(self.records)):
            raise ValueError("records must be distinct and ascending")
        return self


def agreed(
    preferences: Mapping[PeerId, RecordNames], signers: Mapping[Digest, PeerId], quorum: int
) -> RecordNames | None:
    """Return what a quorum prefers in a round, or None.

    Only one thing can be: two quorums share an honest validator, who prefers one thing a round.

    Args:
        preferences: of one round, by signer; whoever has voted prefers that in every round.
        signers: who signed which record, of all that hold.
        quorum: how many are needed, each of whom signed one of the records it prefers.
    """
    by_value: dict[RecordNames, set[PeerId]] = {}
    for supporter, preferred in preferences.items():
        by_value.setdefault(preferred, set()).add(supporter)
    for names, supporters in by_value.items():
        known = {signers[Digest(name)] for name in names if name in signers}
        if len(known) == len(names) and len(supporters & known) >= quorum:
            return names
    return None
