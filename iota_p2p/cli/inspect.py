"""`iota-p2p inspect`: who signed this file, what it says, and whether it is valid or exactly why not."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from iota_p2p.cli import exit_codes
from iota_p2p.cli.run_id import parse_run_id
from iota_p2p_crypto.errors import UserError


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
    from iota_p2p.audit.inspection import MAX_FILE_BYTES, inspect_bytes

    expected_run = None if run_id is None else parse_run_id(run_id)
    report = inspect_bytes(_read(file, MAX_FILE_BYTES + 1), expected_run, time.time())
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print_text(report)
    if not report["valid"]:
        raise typer.Exit(exit_codes.INVALID)


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


def _read(file: Path, most_bytes: int) -> bytes:
    """Read one byte more than an envelope or a fault may have, so that an oversized one is named as such."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(most_bytes)
        with file.open("rb") as handle:
            return handle.read(most_bytes)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
