"""`iota-p2p audit`: check signed scores with nothing but files; needs neither torch nor a network.

What the verbs work with is imported when they run: every other verb starts without numpy and the messages.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota_p2p.audit.failure import Failure
from iota_p2p_crypto.errors import RemoteProtocolError, UserError
from iota_p2p_crypto.identity import PeerId, parse_peer_id

if TYPE_CHECKING:
    from iota_p2p.audit.dossier import Dossier
    from iota_p2p.audit.explanation import EpochExplanation
    from iota_p2p.audit.silence import Silence

# Failures printed one by one; one changed byte can break thousands of things that rest on it.
_MAX_LINES = 20

app = typer.Typer(
    help="""Check signed scores: offline, from files alone.

    PATHS are home folders of peers or testnets, bundles, or files of one envelope, in any mixture. Exit codes: 0 all
    holds, 10 to 20 name the first kind of failure (README, "Exit codes").
    """,
    no_args_is_help=True,
)

Paths = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Home folders, bundles, envelopes.")]
RunId = Annotated[str | None, typer.Option("--run-id", metavar="HEX", help="Which run, where there are several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command(name="verify")
def verify_command(paths: Paths, run_id: RunId = None, as_json: AsJson = False) -> None:
    """Check signatures, chains, logs, elections and quorums; name validators that said nothing.

    \b
    Examples:
      iota-p2p audit verify ./testnet
      iota-p2p audit verify scores.iota-bundle --json
    """
    from iota_p2p.audit.silence import silences
    from iota_p2p.audit.verification import verify

    dossier = _dossier(paths, run_id)
    failures = verify(dossier)
    _report(dossier, failures, {}, as_json=as_json, silences=silences(dossier))


@app.command(name="recompute")
def recompute_command(paths: Paths, run_id: RunId = None, as_json: AsJson = False) -> None:
    """Verify, then compute every score again from the loss records it rests on.

    \b
    Example:
      iota-p2p audit recompute ./testnet
    """
    from iota_p2p.audit.recomputation import recompute
    from iota_p2p.audit.verification import verify

    dossier = _dossier(paths, run_id)
    outcome = recompute(dossier)
    done = {"recomputed records": outcome.num_records, "from loss records": outcome.num_losses}
    _report(dossier, [*verify(dossier), *outcome.failures], done, as_json=as_json)


@app.command(name="explain")
def explain_command(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="Whose score: a peer id, or its last characters.")],
    paths: Paths,
    epoch: Annotated[int | None, typer.Option("--epoch", metavar="E", help="Only this epoch.")] = None,
    run_id: RunId = None,
    as_json: AsJson = False,
) -> None:
    """Say why a peer has its scores: every number, who agreed, what decided, and what would raise it.

    \b
    Example:
      iota-p2p audit explain 12D3KooW...abc ./testnet --epoch 3
    """
    from iota_p2p.audit.explanation import explain, lines_of
    from iota_p2p.audit.silence import silences

    dossier = _dossier(paths, run_id)
    peer_id = _find_peer(dossier, peer)
    found = explain(dossier, peer_id, epoch)
    if not found:
        raise UserError(
            f"nobody scored {peer_id} in {'any epoch' if epoch is None else f'epoch {epoch}'} of this archive"
        )
    silent = {one.epoch: one for one in silences(dossier) if one.peer_id == peer_id}
    if as_json:
        epochs = [{**_explained(one), "silent_as_validator": one.epoch in silent} for one in found]
        typer.echo(json.dumps({"peer_id": peer_id, "epochs": epochs}))
        return
    typer.echo(f"peer {peer_id}")
    rules = next(iter(dossier.rules.values()), None)
    for one in found:
        certified = "no certified result" if one.certified is None else _paid(*one.certified)
        typer.echo(f"\nepoch {one.epoch}: {certified}")
        for proof, num_records in one.proofs:
            typer.echo(f"  proved: {proof} (in {num_records} records)")
        if one.epoch in silent:
            typer.echo(f"  as a validator: {silent[one.epoch]}")
        for opinion in one.opinions:
            agreed = {None: "", True: "  agrees with the result", False: "  differs from the result"}[opinion.agrees]
            first, *rest = lines_of(opinion, rules)
            typer.echo(f"  {first}{agreed}")
            for line in rest:
                typer.echo(f"  {line}")


@app.command(name="diff")
def diff_command(
    first: Annotated[Path, typer.Argument(metavar="A", help="A home folder, bundle or envelope.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    run_id: RunId = None,
    as_json: AsJson = False,
) -> None:
    """Say where two archives of a run disagree, and what only one of them has; exits with 20 if they disagree.

    \b
    Example:
      iota-p2p audit diff ./home-a ./home-b
    """
    from iota_p2p.audit.comparison import compare_archives

    outcome = compare_archives(_dossier([first], run_id), _dossier([second], run_id))
    if as_json:
        typer.echo(json.dumps({**asdict(outcome), "failures": [one.to_json() for one in outcome.failures]}))
    else:
        typer.echo(f"alike in both: {outcome.num_common}")
        for name, path in ((outcome.only_first, first), (outcome.only_second, second)):
            typer.echo(f"only in {path}: {len(name)}")
            _print_some(name)
        typer.echo(f"different: {len(outcome.failures)}")
        _print_some(map(str, outcome.failures))
    _exit(outcome.failures)


@app.command(name="export")
def export_command(
    home: Annotated[Path, typer.Option("--home", metavar="DIR", help="Home folder of a peer or of a testnet.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The bundle to write.")],
) -> None:
    """Write all signed facts of a home folder into one portable file.

    \b
    Example:
      iota-p2p audit export --home ./testnet --out scores.iota-bundle
    """
    from iota_p2p.audit.archive import read_archive
    from iota_p2p.audit.bundle import write_bundle

    if out.exists():
        raise UserError(f"{out} exists already: choose another --out, nothing was written")
    num_facts = write_bundle(out, read_archive([home]).all())
    typer.echo(f"{num_facts} facts in {out} ({out.stat().st_size:,} bytes)")


def _dossier(paths: Sequence[Path], run_id: str | None) -> "Dossier":
    from iota_p2p.audit.archive import read_archive
    from iota_p2p.audit.dossier import open_dossier
    from iota_p2p.cli.run_id import parse_run_id

    return open_dossier(read_archive(paths), None if run_id is None else parse_run_id(run_id))


def _find_peer(dossier: "Dossier", text: str) -> PeerId:
    """Return the one scored peer whose id is, or ends in, what was typed."""
    rows = (row.peer_id for records in dossier.records.values() for record in records for row in record.payload.rows)
    known = sorted({PeerId(peer_id) for peer_id in rows})
    matching = [peer_id for peer_id in known if peer_id.endswith(text)]
    if len(matching) == 1:
        return matching[0]
    try:
        return parse_peer_id(text)
    except RemoteProtocolError as error:
        reason = "several scored peers" if matching else "no scored peer"
        raise UserError(f"{reason} end in {text!r:.80}: give more of the id") from error


def _report(
    dossier: "Dossier",
    failures: Sequence[Failure],
    done: dict[str, int],
    *,
    as_json: bool,
    silences: Sequence["Silence"] = (),
) -> None:
    counts = {**dossier.num_facts, **done}
    if as_json:
        found, silent = [failure.to_json() for failure in failures], [asdict(one) for one in silences]
        typer.echo(json.dumps({"run_id": dossier.run_id.hex(), "counts": counts, "failures": found, "silent": silent}))
    else:
        typer.echo(f"run {dossier.run_id.hex()}")
        for name, count in counts.items():
            typer.echo(f"  {count:>8,} {name}")
        typer.echo("all of it holds" if not failures else f"{len(failures)} failures:")
        _print_some(map(str, failures))
        if silences:
            typer.echo(f"validators without a record in a result, which is no failure: {len(silences)}")
            _print_some(map(str, silences))
    _exit(failures)


def _print_some(lines: Iterable[str]) -> None:
    every = list(lines)
    for line in every[:_MAX_LINES]:
        typer.echo(f"  {line}")
    if len(every) > _MAX_LINES:
        typer.echo(f"  and {len(every) - _MAX_LINES} more (--json prints all)")


def _exit(failures: Sequence[Failure]) -> None:
    if failures:
        raise typer.Exit(min(failure.check for failure in failures))


def _paid(score: int, share: int) -> str:
    return f"certified score {score}, share of the pot {share}"


def _explained(one: "EpochExplanation") -> dict[str, Any]:
    opinions = [
        {**asdict(opinion), "findings": opinion.findings.model_dump(), "score": opinion.score.model_dump()}
        for opinion in one.opinions
    ]
    return {"epoch": one.epoch, "certified": one.certified, "proofs": one.proofs, "opinions": opinions}
