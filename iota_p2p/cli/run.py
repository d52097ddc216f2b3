"""`iota-p2p run`: make a run, and show what one asks of its peers."""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota_p2p.home import default_home
from iota_p2p_crypto.errors import UserError

if TYPE_CHECKING:  # a verb imports what it needs when it runs
    from iota_p2p.run.shards import ShardStore
    from iota_p2p.run.spec import RunPlan
    from iota_p2p.run.tokens import Tokenizer

# Documents of a dataset unless told otherwise: a few hundred megabytes of web text, packed in minutes.
DEFAULT_DOCUMENTS = 100_000

app = typer.Typer(no_args_is_help=True, help="Make and show runs.", rich_markup_mode=None)


@app.command(name="new")
def new(
    out: Annotated[Path, typer.Option(help="Where to write the run's spec.")],
    config: Annotated[str, typer.Option(metavar="FILE|NAME", help="A TOML file, or a config's name.")] = "tiny",
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Text files to train on.  [default: Python's own standard library]"),
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="A Hugging Face tokenizers file.  [default: bytes]")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="ID", help="A Hugging Face dataset instead of files.")] = None,
    revision: Annotated[str | None, typer.Option(metavar="REV", help="The dataset's exact revision.")] = None,
    subset: Annotated[str | None, typer.Option(metavar="NAME", help="The dataset's configuration, if many.")] = None,
    column: Annotated[str, typer.Option(help="The dataset's column of text.")] = "text",
    documents: Annotated[int, typer.Option(min=1, help="How many documents of the dataset.")] = DEFAULT_DOCUMENTS,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights.")] = 0,
    store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the shards.  [default: shards in the home]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Pack data into shards and write the spec that others join; an existing file is never overwritten.

    Peers fetch the spec and the shards from each other: nothing has to be published but the run id.

    \b
    Examples:
      iota-p2p run new --config tiny --out tiny.run
      iota-p2p run new --config 1.5b --data 'books/**/*.txt' --tokenizer tokenizer.json --out books.run
      iota-p2p run new --config 1.5b --dataset ID --revision REV --tokenizer tokenizer.json --out web.run

    Tokenizers and datasets need the extra `data`: pip install 'iota-p2p[data]'.
    """
    from iota_p2p.run.configs import find_config
    from iota_p2p.run.founding import found_run
    from iota_p2p.run.plan_file import load_plan

    _check_free(out)  # before hours of packing
    plan = load_plan(find_config(config))
    source = _documents(data, dataset, revision, subset, column, documents)
    spec = found_run(plan, _counted(source), _tokenizer(tokenizer), _shard_store(store), seed=seed)
    _write_new(out, spec.to_bytes())
    tokens = sum(ref.num_tokens for ref in spec.data.train)
    if as_json:
        typer.echo(json.dumps({"run_id": spec.run_id.hex(), "path": str(out), "training_tokens": tokens}))
    else:
        typer.echo(f"run id  {spec.run_id.hex()}")
        typer.echo(f"spec    {out}")
        typer.echo(f"data    {tokens:,} tokens to train on, in {len(spec.data.train)} shards of {_folder(store)}")


@app.command(name="show")
def show(
    run: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A run's spec, a config, or a config's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Print a run's id, shape and data, and what each of its stages asks of the peer that holds it.

    Everything is computed, nothing allocated: a run of any size is shown at once.

    \b
    Examples:
      iota-p2p run show tiny.run
      iota-p2p run show 100b
      iota-p2p run show configs/1.5b.toml --json
    """
    plan = _load(run)  # before torch is imported, which takes seconds

    from iota_p2p.cli.run_sheet import print_sheet, run_sheet
    from iota_p2p.model.run_figures import run_figures

    figures = run_figures(plan)
    if as_json:
        typer.echo(json.dumps(run_sheet(plan, figures)))
    else:
        print_sheet(plan, figures)


def _load(name: str) -> "RunPlan":
    """Return the spec in a file, or the plan in a config."""
    from iota_p2p.run.configs import find_config
    from iota_p2p.run.plan_file import load_plan
    from iota_p2p.run.run_files import read_spec

    path = find_config(name)
    return load_plan(path) if path.suffix == ".toml" else read_spec(path)


def _documents(
    data: list[str] | None, dataset: str | None, revision: str | None, subset: str | None, column: str, limit: int
) -> Iterable[str]:
    from iota_p2p.run import corpus

    if dataset is not None:
        if data:
            raise UserError("use --data or --dataset, not both")
        if revision is None:
            raise UserError("a dataset needs its --revision: others must be able to make the same shards")
        return corpus.dataset_stream(dataset, revision, column, limit, subset=subset)
    if revision is not None or subset is not None:
        raise UserError("--revision and --subset go with --dataset")
    if not data:
        return corpus.standard_library()
    return chain.from_iterable([corpus.files(pattern) for pattern in data])


def _tokenizer(path: Path | None) -> "Tokenizer":
    from iota_p2p.run.tokens import ByteTokenizer, FileTokenizer

    return ByteTokenizer() if path is None else FileTokenizer(path)


def _folder(folder: Path | None) -> Path:
    return folder or default_home() / "shards"


def _shard_store(folder: Path | None) -> "ShardStore":
    from iota_p2p.run.shards import ShardStore

    folder = _folder(folder)
    try:
        return ShardStore(folder)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error


def _counted(documents: Iterable[str]) -> Iterator[str]:
    """Yield the documents, and count them on a terminal's stderr as they are packed."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("packing {task.completed:,.0f} documents"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        yield from progress.track(documents, total=None)


def _check_free(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists and is not overwritten: choose another --out, or move it away")


def _write_new(path: Path, data: bytes) -> None:
    _check_free(path)
    try:
        with path.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
