"""Equivocation: two signed statements that exclude each other, as a proof that needs nothing else.

    canonical {"first": envelope, "second": envelope}, first < second

Two score records of one validator and epoch, or two tree heads of one log and size. Unsigned: whoever finds it, the
guilty one has signed both halves.
"""

from dataclasses import dataclass

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import SCORE, TREE_HEAD
from iota_p2p_crypto.envelope import MAX_ENVELOPE_BYTES, Verified, domain_of, open_envelope
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.tree_head import TreeHead
from iota_p2p_protocols.errors import InvalidProofError, LocalProtocolError, MalformedError
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.score_record import ScoreRecord

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
    if domain == SCORE:
        return _of_records(open_signed(first, ScoreRecord), open_signed(second, ScoreRecord), data)
    if domain == TREE_HEAD:
        heads = [open_envelope(half, TREE_HEAD, TreeHead.from_fields) for half in (first, second)]
        return _of_heads(heads[0], heads[1], data)
    raise MalformedError("equivocation-kind", f"expected score records or tree heads, got {domain.name}")


def _of_records(one: Verified[ScoreRecord], other: Verified[ScoreRecord], data: bytes) -> Equivocation:
    keys = [(half.signer, half.payload.run_id, half.payload.epoch) for half in (one, other)]
    # [equivocation-records] one validator, one run, one epoch, two payloads
    if keys[0] != keys[1] or one.payload_bytes == other.payload_bytes:
        raise InvalidProofError("equivocation-records", "expected two records of one validator and epoch, got others")
    said = one.payload
    return Equivocation(one.signer, SCORE.name, f"epoch {said.epoch}", said.run_id, said.epoch, data)


def _of_heads(one: Verified[TreeHead], other: Verified[TreeHead], data: bytes) -> Equivocation:
    first, second = one.payload, other.payload
    same = (first.run_id, first.log_id, first.size) == (second.run_id, second.log_id, second.size)
    signed = first.log_id in one.signers and first.log_id in other.signers
    # [equivocation-heads] one log, one size, two roots, both signed by the log's owner
    if not same or not signed or first.root == second.root:
        raise InvalidProofError("equivocation-heads", "expected two heads of one log and size, got others")
    return Equivocation(first.log_id, TREE_HEAD.name, f"size {first.size}", first.run_id, None, data)
