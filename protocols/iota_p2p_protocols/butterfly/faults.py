"""All kinds of faults by name: what `iota-p2p inspect` and whoever receives a fault verify it with."""

from collections.abc import Callable, Mapping

from iota_p2p_protocols.butterfly.contribution_fault import verify_contribution_fault
from iota_p2p_protocols.butterfly.fault_file import MAGIC, Verdict, unpack_fault
from iota_p2p_protocols.butterfly.reducer_fault import verify_reducer_fault
from iota_p2p_protocols.butterfly.report_fault import verify_report_fault
from iota_p2p_protocols.butterfly.roster_fault import verify_roster_fault
from iota_p2p_protocols.butterfly.vote_fault import verify_merge_fault, verify_row_fault
from iota_p2p_protocols.errors import MalformedError

_VERIFY: Mapping[str, Callable[[bytes], Verdict]] = {
    "contribution": verify_contribution_fault,
    "merge": verify_merge_fault,
    "reducer": verify_reducer_fault,
    "report": verify_report_fault,
    "roster": verify_roster_fault,
    "row": verify_row_fault,
}


def is_fault(data: bytes) -> bool:
    """Tell whether a file says that it is a fault."""
    return data.startswith(MAGIC)


def verify_fault(data: bytes) -> Verdict:
    """Check a fault of any kind by itself and return who is guilty of what.

    Raises:
        RemoteProtocolError: if it does not hold; whoever sent it has proved nothing.
    """
    fields, _ = unpack_fault(data)
    kind = fields.get("fault")
    verify = _VERIFY.get(kind) if isinstance(kind, str) else None
    if verify is None:
        raise MalformedError("fault-kind", f"expected one of {', '.join(_VERIFY)}, got {kind!r:.40}")
    return verify(data)
