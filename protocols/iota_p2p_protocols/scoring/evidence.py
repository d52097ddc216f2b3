"""Evidence: the loss records of an epoch, fixed by their holder before it can know who will look at them.

Whoever holds loss records at the end of an epoch commits to all of them: the last stage's peers to those they signed
(`tail`), the sources to those that came home (`source`). The two tell the same story twice, so a record that only the
source shows was withheld by the tail that signed it, and a validator takes the union. Leaves of the tree are the
records' envelopes in the order of their microbatches' digests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.domains import EVIDENCE, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.merkle import MerkleTree
from iota_p2p_protocols.errors import InvalidProofError, InvalidSignatureError, OversizedError
from iota_p2p_protocols.loss_record import LossRecord, open_loss_record, verify_chain
from iota_p2p_protocols.message import Count, DigestField, Message, SignedMessage
from iota_p2p_protocols.scoring.fast_checks import PPM

# As many as one holder's work log can end in (`work_log.MAX_ENTRIES` over two).
MAX_RECORDS = 2**15

Role = Literal["source", "tail"]


class EvidenceCommitment(SignedMessage):
    """A holder fixes its loss records of an epoch.

    Attributes:
        epoch: which epoch.
        role: whether it signed them as the last stage, or started them.
        root: RFC 6962 root over the envelopes.
        num_records: how many there are.
    """

    domain: ClassVar[Domain] = EVIDENCE
    max_lifetime_s: ClassVar[int] = 86_400  # an audit ignores it; validators fetch within the next epoch

    epoch: Count
    role: Role
    root: DigestField
    num_records: Annotated[int, Field(ge=0, le=MAX_RECORDS)]


class EvidenceList(Message):
    """Which records lay behind a commitment: how a ledger remembers what it was shown; its root vouches for it.

    Attributes:
        commitment: digest of the commitment.
        records: digests of the records' envelopes in their order.
    """

    commitment: DigestField
    records: Annotated[tuple[DigestField, ...], Field(max_length=MAX_RECORDS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceTerms:
    """What records must be of.

    Attributes:
        run_id: the run.
        num_stages: its stages.
        epoch: the epoch in question.
    """

    run_id: bytes
    num_stages: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A loss record whose whole chain was checked.

    Attributes:
        record: the record.
        pathway: its peers, one per stage.
    """

    record: Verified[LossRecord]
    pathway: tuple[PeerId, ...]

    def microbatch_of(self, run_id: bytes) -> Digest:
        """Return the digest of its microbatch: one microbatch counts once."""
        return self.record.payload.microbatch.digest(run_id)


def order_records(records: Iterable[Verified[LossRecord]], run_id: bytes) -> list[Verified[LossRecord]]:
    """Return records in the order in which they are committed to."""
    return sorted(records, key=lambda record: (record.payload.microbatch.digest(run_id), record.envelope_bytes))


def evidence_root(envelopes: Iterable[bytes]) -> Digest:
    """Return the root over envelopes in their order."""
    return MerkleTree(envelopes).root()


def open_evidence(
    commitment: Verified[EvidenceCommitment],
    envelopes: Sequence[bytes],
    terms: EvidenceTerms,
    known: Mapping[bytes, Witnessed] = MappingProxyType({}),
) -> list[Witnessed]:
    """Check what a holder sent against what it committed to, down to every signature.

    One record that does not hold refuses all: its holder had to check it before committing to it.

    Args:
        commitment: what it committed to.
        envelopes: what it sent.
        terms: what the records must be of.
        known: records checked before for the same terms, by envelope: a tail and a source show the same ones, and
            signatures are most of the work.

    Raises:
        OversizedError: if there are more than it committed to.
        InvalidProofError: if they are not what it committed to, or a chain does not hold.
        InvalidSignatureError: if a record is not its own to show.
        RemoteProtocolError: as `open_loss_record` and `verify_chain`.
    """
    promised = commitment.payload
    # [evidence-count] as many as promised
    if len(envelopes) != promised.num_records:
        raise OversizedError("evidence-count", f"expected {promised.num_records} records, got {len(envelopes)}")
    # [evidence-root] and the very ones
    if evidence_root(envelopes) != promised.root:
        raise InvalidProofError("evidence-root", f"expected records under {promised.root.hex()[:16]}, got others")
    return [_of_holder(commitment, known.get(envelope) or _witnessed(envelope, terms)) for envelope in envelopes]


def _witnessed(envelope: bytes, terms: EvidenceTerms) -> Witnessed:
    # [loss-record-*, chain-*, receipt-*] the record and all receipts in it hold
    record = open_loss_record(envelope)
    pathway = verify_chain(record, run_id=terms.run_id, epochs=(terms.epoch,), num_stages=terms.num_stages)
    return Witnessed(record, pathway)


def _of_holder(commitment: Verified[EvidenceCommitment], one: Witnessed) -> Witnessed:
    # [evidence-holder] a tail shows what it signed, a source what it started
    holder = one.pathway[-1] if commitment.payload.role == "tail" else one.pathway[0]
    if holder != commitment.signer:
        raise InvalidSignatureError(
            "evidence-holder", f"expected records of {commitment.signer} as {commitment.payload.role}, got {holder}'s"
        )
    return one


@dataclass(frozen=True, slots=True)
class JoinedEvidence:
    """Everything that was shown of an epoch, joined.

    Attributes:
        records: one per microbatch, in the order of their digests.
        shown: how many records each tail showed that it signed.
        withheld: how many records that a tail signed, and a source shows, it did not show itself, per tail.
        contradicted: how many chains a tail signed two different losses of, per tail.
    """

    records: tuple[Witnessed, ...]
    shown: dict[PeerId, int]
    withheld: dict[PeerId, int]
    contradicted: dict[PeerId, int]

    def shown_ppm(self, peer_id: PeerId) -> int:
        """Return how much a peer showed of what it owed: 0 if it contradicted itself, all if it owed nothing."""
        if peer_id in self.contradicted:
            return 0
        shown, withheld = self.shown.get(peer_id, 0), self.withheld.get(peer_id, 0)
        return PPM * shown // (shown + withheld) if withheld else PPM


def join_evidence(
    shown: Iterable[tuple[Verified[EvidenceCommitment], Sequence[Witnessed]]], run_id: bytes
) -> JoinedEvidence:
    """Join what all holders showed; the order in which it is given makes no difference.

    A microbatch that was driven twice, because a caller lost patience with the first tail, has two honest records:
    the one with the smaller digest counts.
    """
    by_tails: dict[PeerId, set[bytes]] = {}
    everything: dict[bytes, Witnessed] = {}
    tails = set()
    for commitment, records in shown:
        if commitment.payload.role == "tail":
            tails.add(commitment.signer)
            by_tails.setdefault(commitment.signer, set()).update(one.record.envelope_bytes for one in records)
        everything.update({one.record.envelope_bytes: one for one in records})
    withheld: dict[PeerId, int] = {}
    versions: dict[tuple[PeerId, tuple[bytes, ...]], set[bytes]] = {}
    chosen: dict[bytes, Witnessed] = {}
    for envelope, one in everything.items():
        tail, microbatch = one.pathway[-1], one.microbatch_of(run_id)
        if envelope not in by_tails.get(tail, ()):
            withheld[tail] = withheld.get(tail, 0) + 1
        versions.setdefault((tail, (microbatch, *one.record.payload.chain)), set()).add(one.record.payload_bytes)
        other = chosen.get(microbatch)
        if other is None or one.record.digest < other.record.digest:
            chosen[microbatch] = one
    contradicted: dict[PeerId, int] = {}
    for (tail, _), payloads in versions.items():
        if len(payloads) > 1:
            contradicted[tail] = contradicted.get(tail, 0) + 1
    shown_by = {tail: len(envelopes) for tail, envelopes in by_tails.items()}
    return JoinedEvidence(tuple(chosen[name] for name in sorted(chosen)), shown_by, withheld, contradicted)
