"""Merge faults: two different results of one roster's merge that one member signed.

A result follows from the roster's inputs, and an honest member signs the one that it came to, once. Whoever shows some
members one result and others another, so that each side takes it for a vote of its own, has signed both.
"""

from typing import Any, Literal

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.fault_file import Verdict, cut, pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.merge_certificate import Merge
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.message import Message, open_signed


class MergeFaultHeader(Message):
    """What the proof holds.

    Attributes:
        liar: which of those who signed both it is about.
        first: the envelope of one result.
        second: that of the other; the greater one as bytes.
    """

    fault: Literal["merge"] = "merge"
    liar: str
    first: bytes
    second: bytes


def make_merge_fault(one: Verified[Merge], other: Verified[Merge], liar: PeerId) -> bytes:
    """Return the proof against one of those who signed both; raises InvalidProofError if there is none."""
    first, second = sorted((one.envelope_bytes, other.envelope_bytes))
    data = pack_fault(MergeFaultHeader(liar=liar, first=first, second=second).to_fields())
    verify_merge_fault(data)
    return data


def verify_merge_fault(data: bytes) -> Verdict:
    """Check the proof by itself.

    Raises:
        InvalidProofError: if the results are not of one roster, do not differ, or the accused has not signed both.
        RemoteProtocolError: if it is malformed, or a result does not verify.
    """
    fields, blocks = unpack_fault(data)
    header = MergeFaultHeader.from_fields(fields)
    cut(blocks, ())
    # [fault-order] each pair of results makes one proof
    if header.first >= header.second:
        raise InvalidProofError("fault-order", "expected two different results in order, got others")
    one, other = (open_signed(envelope, Merge) for envelope in (header.first, header.second))
    # [fault-same] one run, stage and epoch, one roster
    if _about(one) != _about(other):
        raise InvalidProofError("fault-same", f"expected two results of one roster, got {_about(one)}, {_about(other)}")
    # [fault-contradiction] they differ
    if one.payload_bytes == other.payload_bytes:
        raise InvalidProofError("fault-contradiction", "expected two results, got the same one twice")
    # [fault-liar] the accused signed both
    if header.liar not in one.signers or header.liar not in other.signers:
        raise InvalidProofError("fault-liar", f"expected two results signed by {header.liar:.80}, got others")
    payload = one.payload
    names = f"{one.digest.hex()[:16]} and {other.digest.hex()[:16]}"
    reason = f"expected one result of roster {payload.roster.hex()[:16]}, got {names}"
    return Verdict(PeerId(header.liar), header.fault, payload.run_id, payload.epoch, payload.stage, reason)


def _about(merge: Verified[Merge]) -> tuple[Any, ...]:
    payload = merge.payload
    return (payload.run_id, payload.epoch, payload.stage, payload.roster)
