"""The verbs of `iota-p2p`, and the one place where errors become exit codes.

Each verb lives in its own module, which imports what it needs when it runs: `iota-p2p audit` must not pay for torch.

Packages above this one add verbs as entry points, since imports go down only: `testnet` starts peers, so it stands
above them. Unlike an import by name, an entry point leaves this package ignorant of who adds what. Finding them
costs 5 ms.
"""

import os
import sys
import traceback
from importlib.metadata import entry_points

import typer

from iota_p2p.cli import (
    audit,
    audit_chain,
    chain,
    claim,
    doctor,
    exit_codes,
    export,
    generate,
    inspect,
    key,
    peer,
    peers,
    run,
    settle,
)
from iota_p2p_crypto.errors import (
    IotaError,
    LocalProtocolError,
    RemoteProtocolError,
    UserError,
)

app = typer.Typer(
    name="iota-p2p",
    help="Train large language models together, with no server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(audit.app, name="audit")
audit.app.command(name="chain")(audit_chain.audit_chain_command)
app.add_typer(chain.app, name="chain")
app.add_typer(export.app, name="export")
app.add_typer(key.app, name="key")
app.add_typer(run.app, name="run")
app.command(name="claim")(claim.claim)
app.command(name="doctor")(doctor.doctor)
app.command(name="generate")(generate.generate)
app.command(name="inspect")(inspect.inspect)
app.command(name="peer")(peer.peer)
app.command(name="peers")(peers.peers)
app.command(name="settle")(settle.settle)
for _verb in sorted(entry_points(group="iota_p2p.verbs"), key=lambda verb: verb.name):
    app.command(name=_verb.name)(_verb.load())


def run_command() -> None:
    """Run the command; leave with a documented exit code and one line on stderr if anything went wrong."""
    try:
        app()
    except (IotaError, ExceptionGroup) as error:
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """Say what went wrong in one line and return the exit code; tasks that fail together fail for one reason."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    match error:
        case UserError():
            return _fail(str(error), exit_codes.USAGE)
        case RemoteProtocolError():
            return _fail(f"{error} [{error.rule}]", exit_codes.INVALID)
        case IotaError() if not isinstance(error, LocalProtocolError):
            return _fail(str(error), exit_codes.FAILURE)
        case BrokenPipeError():  # whoever read our output has seen enough, as in `iota-p2p doctor | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is not written yet would fail again
            return exit_codes.FAILURE
    traceback.print_exception(error)
    return _fail("this is a bug of ours: please report the lines above", exit_codes.INTERNAL)


def _fail(message: str, code: int) -> int:
    print(f"iota-p2p: {message}", file=sys.stderr)  # noqa: T201 - the command's own voice
    return code
