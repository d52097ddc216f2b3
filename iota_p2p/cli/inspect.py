"""`iota-p2p inspect`: who signed this file, what it says, and whether it is valid or exactly why not."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from iota_p2p.cli import exit_codes
from iota_p2p_crypto.domains import Domain
from iota_p2p_crypto.envelope import MAX_ENVELOPE_BYTES, Verified, domain_of, open_envelope
from iota_p2p_crypto.errors import RemoteProtocolError, StaleError, UserError
from iota_p2p_protocols.butterfly.fault_file import MAX_FAULT_BYTES
from iota_p2p_protocols.butterfly.faults import is_fault, verify_fault
from iota_p2p_protocols.butterfly.merge_certificate import Merge
from iota_p2p_protocols.butterfly.roster import Roster, is_packed_roster, open_proposal, quorum
from iota_p2p_protocols.epoch_close import EpochClose, open_epoch_close
from iota_p2p_protocols.errors import WrongRunError
from iota_p2p_protocols.ids import RUN_ID_BYTES
from iota_p2p_protocols.kinds import KIND_BY_DOMAIN
from iota_p2p_protocols.message import Message, SignedMessage

_MAX_FILE_BYTES = max(MAX_ENVELOPE_BYTES, MAX_FAULT_BYTES)


def inspect(
    file: Annotated[
        Path, typer.Argument(help="A file holding one signed envelope, a roster or a fault; '-' reads standard input.")
    ],
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="HEX", help="Also demand that it belongs to this run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Check a signed file and print its signer, type and fields, or who is guilty of what by a fault's proof.

    Exits with 0 if it is valid and 3 if not. A message that has merely expired is still valid: its signature
    holds, and the line "current" says how it stands with the clock.

    \b
    Examples:
      iota-p2p inspect advert.env
      iota-p2p inspect advert.env --json --run-id 00...00
    """
    expected_run = None if run_id is None else parse_run_id(run_id)
    data = _read(file)
    if is_fault(data):
        report = inspect_fault(data, expected_run)
    elif is_packed_roster(data):
        report = inspect_roster(data, expected_run, time.time())
    else:
        report = inspect_envelope(data, expected_run, time.time())
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print_text(report)
    if not report["valid"]:
        raise typer.Exit(exit_codes.INVALID)


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


def _print_text(report: dict[str, Any]) -> None:
    verdict = "valid" if report["valid"] else f"INVALID: {report['reason']} [{report['rule']}]"
    typer.echo(f"verdict   {verdict}")
    for name in ("type", "version", "digest", "current", "certified", "guilty"):
        if name in report:
            typer.echo(f"{name:<10}{report[name]}")
    for signer in report.get("signers", ()):
        typer.echo(f"signer    {signer}")
    fields = report.get("fields")
    for name, value in fields.items() if isinstance(fields, dict) else ():
        typer.echo(f"  {name:<18}{value if isinstance(value, (str, int)) else json.dumps(value)}")


def _read(file: Path) -> bytes:
    """Read one byte more than an envelope or a fault may have, so that an oversized one is named as such."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
        with file.open("rb") as handle:
            return handle.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


def parse_run_id(text: str) -> bytes:
    """Return the run id in hex digits from a command line; raises UserError if it is none."""
    try:
        run_id = bytes.fromhex(text)
    except ValueError as error:
        raise UserError(f"expected a run id of {2 * RUN_ID_BYTES} hex digits, got {text!r:.80}") from error
    if len(run_id) != RUN_ID_BYTES:
        raise UserError(f"expected a run id of {2 * RUN_ID_BYTES} hex digits, got {len(text)} characters")
    return run_id
