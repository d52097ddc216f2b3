"""Vote faults: two different results of one roster that one member signed.

A result follows from the roster's inputs, and an honest member signs the one that it came to, once. Whoever shows some
members one result and others another, so that each side takes it for a vote of its own, has signed both. They are of
kind `merge` if they are about what came of a merge, `row` if about the mean of a grid's row.
"""

from typing import Any, Literal

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contradiction import SharedPairHeader, check_liar, open_header, open_pair
from iota_p2p_protocols.butterfly.fault_file import Verdict, pack_fault
from iota_p2p_protocols.butterfly.merge_certificate import Merge
from iota_p2p_protocols.butterfly.row_mean import RowMean
from iota_p2p_protocols.butterfly.vote import V


class MergeFaultHeader(SharedPairHeader):
    """What the proof holds: two envelopes of results, and which of those who signed both it is about."""

    fault: Literal["merge"] = "merge"


class RowFaultHeader(SharedPairHeader):
    """The same of means of a row."""

    fault: Literal["row"] = "row"


def make_vote_fault(one: Verified[V], other: Verified[V], liar: PeerId) -> bytes:
    """Return the proof against one of those who signed both; raises InvalidProofError if there is none."""
    first, second = sorted((one.envelope_bytes, other.envelope_bytes))
    is_row = isinstance(one.payload, RowMean)
    form, verify = (RowFaultHeader, verify_row_fault) if is_row else (MergeFaultHeader, verify_merge_fault)
    data = pack_fault(form(liar=liar, first=first, second=second).to_fields())
    verify(data)
    return data


def verify_merge_fault(data: bytes) -> Verdict:
    """Check a proof about a merge by itself.

    Raises:
        InvalidProofError: if the results are not of one roster, do not differ, or the accused has not signed both.
        RemoteProtocolError: if it is malformed, or a result does not verify.
    """
    return _verify(data, MergeFaultHeader, Merge, "results")


def verify_row_fault(data: bytes) -> Verdict:
    """Check a proof about a row's mean by itself; raises as `verify_merge_fault` does."""
    return _verify(data, RowFaultHeader, RowMean, "row means")


def _verify(data: bytes, form: type[MergeFaultHeader | RowFaultHeader], kind: type[V], what: str) -> Verdict:
    header = open_header(data, form)
    # [fault-same] one run, stage and epoch, one roster
    one, other = open_pair(header, kind, _about, what, "one roster")
    liar = check_liar(header, one, other, what)
    payload = one.payload
    names = f"{one.digest.hex()[:16]} and {other.digest.hex()[:16]}"
    reason = f"expected one result of roster {payload.roster.hex()[:16]}, got {names}"
    return Verdict(liar, header.fault, payload.run_id, payload.epoch, payload.stage, reason)


def _about(vote: Verified[V]) -> tuple[Any, ...]:
    payload = vote.payload
    return (payload.run_id, payload.epoch, payload.stage, payload.roster)
