"""Equivocation: two signed statements that exclude each other, as a proof that needs nothing else.

    canonical {"first": envelope, "second": envelope}, first < second

Two score records of one validator and epoch, two results that it voted for, two preferences in one round of the ballot,
or two tree heads of one log and size. Unsigned: whoever finds it, the guilty one has signed both halves. Of several
who signed both, as results have many signers, the proof is against the first by id.
"""

from dataclasses import dataclass
from typing import TypeVar

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import TREE_HEAD
from iota_p2p_crypto.envelope import MAX_ENVELOPE_BYTES, Verified, domain_of, open_envelope
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.tree_head import TreeHead
from iota_p2p_protocols.errors import InvalidProofError, LocalProtocolError, MalformedError
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.preference import Preference
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord

Statement = TypeVar("Statement", ScoreRecord, Preference, EpochResult)

MAX_PROOF_BYTES = 2 * MAX_ENVELOPE_BYTES + 64  # two envelopes and their names


@dataclass(frozen=True, slots=True)
class Equivocation:
    """A proof that holds.

    Attributes:
        guilty: who signed both.
        kind: of what, as the domain is called.
        about: what both are about, for people.
        run_id: in which run.
        epoch: whose records or votes they are; None for tree heads, which have none.
        proof: its bytes.
    """

    guilty: PeerId
    kind: str
    about: str
    run_id: bytes
    epoch: int | None
    proof: bytes


def make_equivocation_proof(one: bytes, other: bytes) -> bytes:
    """Return the proof from two envelopes; raises LocalProtocolError if it would not hold."""
    first, second = sorted((one, other))
    data = canonical.encode({"first": first, "second": second})
    try:
        open_equivocation_proof(data)
    except (InvalidProofError, MalformedError) as error:
        raise LocalProtocolError(f"expected two statements that exclude each other: {error}") from error
    return data


def open_equivocation_proof(data: bytes) -> Equivocation:
    """Check a proof by itself.

    Raises:
        MalformedError: if it is no such pair.
        InvalidProofError: if the two do not exclude each other.
        RemoteProtocolError: if one of them does not verify.
    """
    fields = canonical.decode(data, max_bytes=MAX_PROOF_BYTES)
    match fields:
        case {"first": bytes(first), "second": bytes(second)} if len(fields) == 2 and first < second:  # noqa: PLR2004
            domain = domain_of(first)
        case _:
            raise MalformedError("equivocation-form", f"expected two envelopes in order, got {fields!r:.80}")
    if domain == TREE_HEAD:
        heads = [open_envelope(half, TREE_HEAD, TreeHead.from_fields) for half in (first, second)]
        return _of_heads(heads[0], heads[1], data)
    if domain == ScoreRecord.domain:
        return _of_statements(open_signed(first, ScoreRecord), open_signed(second, ScoreRecord), data)
    if domain == Preference.domain:
        return _of_statements(open_signed(first, Preference), open_signed(second, Preference), data)
    if domain == EpochResult.domain:
        return _of_statements(open_signed(first, EpochResult), open_signed(second, EpochResult), data)
    raise MalformedError("equivocation-kind", f"expected what may be signed once, got a {domain.name}")


def _of_statements(one: Verified[Statement], other: Verified[Statement], data: bytes) -> Equivocation:
    abouts = [(half.payload.run_id, half.payload.epoch, _round_of(half.payload)) for half in (one, other)]
    guilty = sorted(set(one.signers) & set(other.signers))
    said = one.payload
    # [equivocation-records] one validator, one run, one epoch (and round, of preferences), two payloads
    if not guilty or abouts[0] != abouts[1] or one.payload_bytes == other.payload_bytes:
        name = said.domain.name
        raise InvalidProofError("equivocation-records", f"expected two {name}s of one signer and epoch, got others")
    return Equivocation(guilty[0], said.domain.name, f"epoch {said.epoch}", said.run_id, said.epoch, data)


def _round_of(statement: ScoreRecord | Preference | EpochResult) -> int:
    return statement.round if isinstance(statement, Preference) else 0


def _of_heads(one: Verified[TreeHead], other: Verified[TreeHead], data: bytes) -> Equivocation:
    first, second = one.payload, other.payload
    same = (first.run_id, first.log_id, first.size) == (second.run_id, second.log_id, second.size)
    signed = first.log_id in one.signers and first.log_id in other.signers
    # [equivocation-heads] one log, one size, two roots, both signed by the log's owner
    if not same or not signed or first.root == second.root:
        raise InvalidProofError("equivocation-heads", "expected two heads of one log and size, got others")
    return Equivocation(first.log_id, TREE_HEAD.name, f"size {first.size}", first.run_id, None, data)
