"""What can be said of signed bytes by themselves: `iota-p2p inspect`, ready for JSON; bytes are shown as hex."""

from dataclasses import asdict
from typing import Any

from iota_p2p_crypto.domains import Domain
from iota_p2p_crypto.envelope import MAX_ENVELOPE_BYTES, Verified, domain_of, open_envelope
from iota_p2p_crypto.errors import RemoteProtocolError, StaleError
from iota_p2p_protocols.butterfly.fault_file import MAX_FAULT_BYTES
from iota_p2p_protocols.butterfly.faults import is_fault, verify_fault
from iota_p2p_protocols.butterfly.merge_certificate import Merge
from iota_p2p_protocols.butterfly.roster import Roster, is_packed_roster, open_proposal, quorum
from iota_p2p_protocols.epoch_close import EpochClose, open_epoch_close
from iota_p2p_protocols.errors import WrongRunError
from iota_p2p_protocols.kinds import KIND_BY_DOMAIN
from iota_p2p_protocols.message import Message, SignedMessage

MAX_FILE_BYTES = max(MAX_ENVELOPE_BYTES, MAX_FAULT_BYTES)


def inspect_bytes(data: bytes, run_id: bytes | None, now_s: float) -> dict[str, Any]:
    """Return what can be said of an envelope, a roster with its contributions, or a proof of a fault."""
    if is_fault(data):
        return inspect_fault(data, run_id)
    if is_packed_roster(data):
        return inspect_roster(data, run_id, now_s)
    return inspect_envelope(data, run_id, now_s)


def inspect_envelope(data: bytes, run_id: bytes | None, now_s: float) -> dict[str, Any]:
    """Return what can be said of an envelope, ready for JSON; bytes are shown as hex."""
    report: dict[str, Any] = {"valid": False, "bytes": len(data)}
    try:
        domain = domain_of(data)
        report |= {"type": domain.name, "version": domain.version}
        verified = _open(data, domain)
        report |= _described(verified, run_id, now_s)
        if isinstance(verified.payload, EpochClose):
            open_epoch_close(data)
        report["valid"] = True
    except RemoteProtocolError as error:
        report |= {"rule": error.rule, "reason": str(error)}
    return report


def inspect_roster(data: bytes, run_id: bytes | None, now_s: float) -> dict[str, Any]:
    """Return what can be said of a roster that travels with its contributions, ready for JSON."""
    report: dict[str, Any] = {"valid": False, "bytes": len(data), "type": Roster.domain.name}
    try:
        proposal = open_proposal(data)
        report |= _described(proposal.roster, run_id, now_s)
    except RemoteProtocolError as error:
        return report | {"rule": error.rule, "reason": str(error)}
    report["fields"]["samples"] = list(proposal.samples)
    report["fields"]["base_digest"] = proposal.base_digest.hex()
    return report | {"valid": True}


def inspect_fault(data: bytes, run_id: bytes | None) -> dict[str, Any]:
    """Return what a proof of a fault in a merge comes to, ready for JSON."""
    report: dict[str, Any] = {"valid": False, "bytes": len(data), "type": "fault"}
    try:
        verdict = verify_fault(data)
        if run_id not in (None, verdict.run_id):
            raise WrongRunError("run-id", f"expected a fault of another run, got one of {verdict.run_id.hex()[:16]}")
    except RemoteProtocolError as error:
        return report | {"rule": error.rule, "reason": str(error)}
    return report | {"valid": True, "guilty": verdict.liar, "fields": _printable(asdict(verdict))}


def _described(verified: Verified[Any], run_id: bytes | None, now_s: float) -> dict[str, Any]:
    """Return what every envelope has, and how far it is certified."""
    payload = verified.payload
    described = {
        "signers": list(verified.signers),
        "digest": verified.digest.hex(),
        "fields": _printable(_fields_of(verified)),
    }
    if isinstance(payload, SignedMessage):
        described["current"] = _standing(payload, run_id, now_s)
    if isinstance(payload, Roster | Merge):
        signed, needed = len(set(verified.signers) & set(payload.peers)), quorum(len(payload.peers))
        answer = "yes" if signed >= needed else "no"
        described["certified"] = f"{answer}: {signed} of {len(payload.peers)} members signed, {needed} are enough"
    return described


def _open(data: bytes, domain: Domain) -> Verified[Any]:
    kind = KIND_BY_DOMAIN.get(domain)
    return open_envelope(data, domain, (lambda fields: fields) if kind is None else kind.from_fields)


def _fields_of(verified: Verified[Any]) -> Any:
    payload = verified.payload
    return payload.model_dump() if isinstance(payload, Message) else payload


def _standing(message: SignedMessage, run_id: bytes | None, now_s: float) -> str:
    """Say how a message stands with the clock; a wrong run is an error, age is not."""
    try:
        message.check_current(message.run_id if run_id is None else run_id, now_s)
    except StaleError as error:
        return f"no: {error}"
    return f"yes, for another {message.expires_s - now_s:.0f} s"


def _printable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_printable(item) for item in value]
    return value
