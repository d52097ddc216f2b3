"""`iota-p2p doctor`: what keeps this machine from taking part, and the exact fix."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from iota_p2p.cli import exit_codes
from iota_p2p.doctor.finding import CHECKS, Finding, Status
from iota_p2p.home import default_home, key_path


def doctor(
    bootstrap: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="A peer you want to join through (…/p2p/12D3…); may be given several times."),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="Where your peer will listen.  [default: /ip4/0.0.0.0/tcp/0, any free port]"),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the key and state.  [default: $IOTA_P2P_HOME or ~/.iota-p2p]")
    ] = None,
    p2pd: Annotated[Path | None, typer.Option(help="The libp2p daemon to run instead of the installed one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of text.")] = False,
) -> None:
    """Examine this machine, its node and your bootstrap peers; name each problem's cause and exact fix.

    Codes such as D203 are explained in docs/doctor.md. Exit code 0 if nothing failed, 1 otherwise.

    \b
    Examples:
      iota-p2p doctor
      iota-p2p doctor --bootstrap /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW... --listen /ip4/0.0.0.0/tcp/4001
    """
    import trio

    from iota_p2p.doctor.examination import Examination, Options, examine_until_interrupted

    options = Options(
        home=home or default_home(),
        key_path=key_path(home),
        bootstrap=tuple(dict.fromkeys(bootstrap or ())),
        listen=tuple(listen or ("/ip4/0.0.0.0/tcp/0",)),
        binary=p2pd,
    )

    def begin(code: str, subject: str) -> None:
        _show_progress(f"checking {code}: {CHECKS[code]} {_printable(subject)}")

    def show(finding: Finding) -> None:
        _show_progress("")
        if not as_json:
            typer.echo(f"{finding.status.value:<9}{finding.code}  {finding.title}: {_printable(finding.cause)}")
            if finding.fix:
                typer.echo(f"{'':15}fix: {_printable(finding.fix)}")

    examination = Examination(begin, show)
    if not trio.run(examine_until_interrupted, options, examination):
        _show_progress("")
        raise typer.Exit(exit_codes.INTERRUPTED)
    if as_json:
        typer.echo(json.dumps([_fields(finding) for finding in examination.found], indent=1))
    if any(finding.status is Status.FAIL for finding in examination.found):
        raise typer.Exit(exit_codes.FAILURE)


def _show_progress(text: str) -> None:
    """Replace the progress line on a terminal; findings themselves go to standard output."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}", nl=False, err=True)


def _printable(text: str) -> str:
    """Return one line without control characters: peers and daemons wrote parts of it."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _fields(finding: Finding) -> dict[str, str]:
    return {
        "code": finding.code,
        "title": finding.title,
        "status": finding.status.value,
        "cause": finding.cause,
        "fix": finding.fix,
    }
