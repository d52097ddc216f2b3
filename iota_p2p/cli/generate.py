"""`iota-p2p generate`: text from a network's current model."""

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from iota_p2p.cli import exit_codes

if TYPE_CHECKING:  # a verb imports what it needs when it runs
    from iota_p2p.generation.text import Written


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to go on from; may be empty.")],
    bootstrap: Annotated[list[str], typer.Option(metavar="ADDR", help="A peer of the network (…/p2p/12D3…).")],
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0, help="Below 1 bolder is rarer; 0 always takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Choose among so many of the likeliest tokens; 0 for all.")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the choices, to repeat them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of text.")] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Give up when a token takes longer.", min=1)
    ] = 60,
) -> None:
    """Go on from PROMPT with the model that a network is training, as it is at this moment.

    Every token is a forward pass through the network's stages, on time that training leaves over. Asks with a
    throw-away identity and joins nothing.

    \b
    Examples:
      iota-p2p generate "def main(" --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
      iota-p2p generate "import " --bootstrap ADDR --tokens 50 --temperature 0 --json
    """
    import trio

    from iota_p2p.generation.sampling import Sampling
    from iota_p2p.generation.text import TextWish, write_until_interrupted

    wish = TextWish(
        prompt=prompt,
        bootstrap=tuple(bootstrap),
        num_tokens=tokens,
        sampling=Sampling(temperature, top_k),
        seed=seed,
        timeout_s=timeout_s,
    )
    show = _ignore if as_json else partial(print, end="", flush=True)
    written = trio.run(write_until_interrupted, wish, show)
    if as_json:
        typer.echo(json.dumps({"prompt": prompt, **_fields(written)}))
    else:
        typer.echo()
    if not written.complete:
        raise typer.Exit(exit_codes.INTERRUPTED)


def _ignore(text: str) -> None:
    pass


def _fields(written: "Written") -> dict[str, object]:
    return {
        "run_id": None if written.run_id is None else written.run_id.hex(),
        "text": written.text,
        "tokens": written.tokens,
        "seconds": round(written.seconds, 3),
        "complete": written.complete,
    }
