"""`iota-p2p peers`: who is in a network, asked of one peer."""

import json
from typing import Annotated, Any

import typer


def peers(
    bootstrap: Annotated[list[str], typer.Option(metavar="ADDR", help="A peer to ask (…/p2p/12D3…).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Give up after.", min=1)] = 20,
) -> None:
    """List the live peers of the network that ADDR belongs to, as ADDR sees it.

    Asks with a throw-away identity and joins nothing.

    \b
    Examples:
      iota-p2p peers --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
      iota-p2p peers --bootstrap ADDR --json
    """
    import trio

    from iota_p2p.roll_call import call_roll

    rows = trio.run(call_roll, tuple(bootstrap), timeout_s)
    if as_json:
        typer.echo(json.dumps({"peers": rows}))
    else:
        _print_table(rows)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("peer", "reached", "stages", "tokens/s", "software", "address", box=None, pad_edge=False)
    for row in rows:
        stages = " ".join(str(offer["stage"]) for offer in row["stages"]) or "-"
        speed = row["tokens_per_s"] or "-"
        address = row["addresses"][0].split("/p2p/")[0] if row["addresses"] else "-"
        table.add_row(row["peer_id"], row["reachability"], stages, str(speed), row["software"], address)
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"{len(rows)} live peers")
