"""Report faults: two reports of one member on one merge that say different things of the same shard."""

from typing import Any, Literal

from iota_p2p_crypto.domains import REDUCER_REPORT
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.butterfly.contradiction import PairHeader, open_header, open_pair
from iota_p2p_protocols.butterfly.fault_file import Verdict, pack_fault
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport
from iota_p2p_protocols.errors import InvalidProofError


class ReportFaultHeader(PairHeader):
    """What the proof holds: two envelopes of reports."""

    fault: Literal["report"] = "report"


def make_report_fault(one: Verified[ReducerReport], other: Verified[ReducerReport]) -> bytes:
    """Return the proof; raises InvalidProofError if the two reports do not contradict each other."""
    first, second = sorted((one.envelope_bytes, other.envelope_bytes))
    data = pack_fault(ReportFaultHeader(first=first, second=second).to_fields())
    verify_report_fault(data)
    return data


def verify_report_fault(data: bytes) -> Verdict:
    """Check the proof by itself.

    Raises:
        InvalidProofError: if the reports are not one member's on one merge, or do not contradict each other.
        RemoteProtocolError: if it is malformed, or a report does not verify.
    """
    header = open_header(data, ReportFaultHeader)
    # [fault-same] one member, one run, one merge
    one, other = open_pair(header, ReducerReport, _about, "reports", "one kind")
    # [fault-contradiction] what they say of some shard differs
    for claim in one.payload.claims:
        against = other.payload.claim_on(claim.shard)
        if against is not None and against != claim:
            return Verdict(
                one.signer,
                header.fault,
                one.payload.run_id,
                one.payload.epoch,
                one.payload.stage,
                f"expected one claim on shard {claim.shard}, got {_brief(claim)} and {_brief(against)}",
            )
    raise InvalidProofError("fault-contradiction", f"expected two {REDUCER_REPORT.name}s that differ, got none")


def _about(report: Verified[ReducerReport]) -> tuple[Any, ...]:
    payload = report.payload
    return (report.signers, payload.run_id, payload.roster, payload.epoch, payload.stage)


def _brief(claim: Any) -> str:
    return f"{claim.digest.hex()[:16]} without {list(claim.missing)}"
