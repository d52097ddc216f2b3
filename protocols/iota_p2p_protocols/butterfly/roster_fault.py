"""Roster faults: two different rosters that one peer signed for one convener and attempt.

A convener that shows different rosters to different members signs both, and so does a member that helps it. An honest
peer signs one roster of each convener and attempt, so whoever signed both is guilty.
"""

from typing import Any, Literal

from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.contradiction import SharedPairHeader, check_liar, open_header, open_pair
from iota_p2p_protocols.butterfly.fault_file import Verdict, pack_fault
from iota_p2p_protocols.butterfly.roster import Roster


class RosterFaultHeader(SharedPairHeader):
    """What the proof holds: two envelopes of rosters, and which of those who signed both it is about."""

    fault: Literal["roster"] = "roster"


def make_roster_faults(one: Verified[Roster], other: Verified[Roster]) -> tuple[bytes, ...]:
    """Return a proof against each peer that signed both; none if the two do not contradict each other."""
    if one.payload_bytes == other.payload_bytes or _about(one) != _about(other):
        return ()
    first, second = sorted((one.envelope_bytes, other.envelope_bytes))
    liars = sorted(set(one.signers) & set(other.signers))
    return tuple(pack_fault(RosterFaultHeader(liar=liar, first=first, second=second).to_fields()) for liar in liars)


def verify_roster_fault(data: bytes) -> Verdict:
    """Check the proof by itself.

    Raises:
        InvalidProofError: if the rosters are not of one attempt, do not differ, or the accused has not signed both.
        RemoteProtocolError: if it is malformed, or a roster does not verify.
    """
    header = open_header(data, RosterFaultHeader)
    # [fault-same] one run, stage and epoch, one convener and attempt
    one, other = open_pair(header, Roster, _about, "rosters", "one attempt")
    liar = check_liar(header, one, other, "rosters")
    payload = one.payload
    names = f"{one.digest.hex()[:16]} and {other.digest.hex()[:16]}"
    reason = f"expected one roster in attempt {payload.attempt} of {payload.convener}, got {names}"
    return Verdict(liar, header.fault, payload.run_id, payload.epoch, payload.stage, reason)


def _about(roster: Verified[Roster]) -> tuple[Any, ...]:
    payload = roster.payload
    return (payload.run_id, payload.epoch, payload.stage, payload.convener, payload.attempt)
