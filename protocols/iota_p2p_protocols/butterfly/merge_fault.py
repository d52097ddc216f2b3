"""Merge faults: two different results of one roster's merge that one member signed.

A result follows from the roster's inputs, and an honest member signs the one that it came to, once. Whoever shows some
members one result and others another, so that each side takes it for a vote of its own, has signed both.
"""

from typing import Any, Literal

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contradiction import SharedPairHeader, check_liar, open_pair
from iota_p2p_protocols.butterfly.fault_file import Verdict, cut, pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.merge_certificate import Merge


class MergeFaultHeader(SharedPairHeader):
    """What the proof holds: two envelopes of results, and which of those who signed both it is about."""

    fault: Literal["merge"] = "merge"


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
    # [fault-same] one run, stage and epoch, one roster
    one, other = open_pair(header, Merge, _about, "results", "one roster")
    liar = check_liar(header, one, other, "results")
    payload = one.payload
    names = f"{one.digest.hex()[:16]} and {other.digest.hex()[:16]}"
    reason = f"expected one result of roster {payload.roster.hex()[:16]}, got {names}"
    return Verdict(liar, header.fault, payload.run_id, payload.epoch, payload.stage, reason)


def _about(merge: Verified[Merge]) -> tuple[Any, ...]:
    payload = merge.payload
    return (payload.run_id, payload.epoch, payload.stage, payload.roster)
