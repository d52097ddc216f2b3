"""`iota-p2p peer`: join a network, or start one, and stay."""

from pathlib import Path
from typing import Annotated

import typer

from iota_p2p.home import default_home
from iota_p2p.network.daemon_config import Reachability


def peer(
    bootstrap: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="A peer to join through (…/p2p/12D3…); may be given several times."),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="Where to listen.  [default: /ip4/0.0.0.0/tcp/0, any free port]"),
    ] = None,
    announce: Annotated[
        list[str] | None, typer.Option(metavar="ADDR", help="Tell others this address, such as a forwarded port.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the key and state.  [default: $IOTA_P2P_HOME or ~/.iota-p2p]")
    ] = None,
    relay: Annotated[bool, typer.Option("--relay", help="Relay for peers that cannot be dialled.")] = False,
    reachability: Annotated[
        Reachability, typer.Option(help="Whether others can dial this machine, where that is known beforehand.")
    ] = Reachability.AUTO,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Read the key's passphrase from this file's first line.")
    ] = None,
    p2pd: Annotated[Path | None, typer.Option(help="The libp2p daemon to run instead of the installed one.")] = None,
    run: Annotated[Path | None, typer.Option(metavar="FILE", help="Start this run (see 'iota-p2p run new').")] = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="HEX", help="Take part in this run and no other.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(metavar="MIB", min=1, help="Memory to give to the run.  [default: all there is]")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            metavar="MIB", min=0, help="Disk for states of stages that others train; 0 for none.  [default: 8192]"
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads to train with.")] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Offer to score others' work, where the run has validators.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event.")] = False,
) -> None:
    """Run a peer until Ctrl-C; without --bootstrap it is the first of a network.

    It makes its key on the first start, prints its own full addresses for others to use, and remembers whom it
    met, so that a restart works even when the bootstrap peer is gone.

    \b
    Examples:
      iota-p2p peer
      iota-p2p peer --run tiny.spec
      iota-p2p peer --bootstrap /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW...
      iota-p2p peer --home ~/second --listen /ip4/127.0.0.1/tcp/0 --bootstrap ADDR --bootstrap ADDR2
    """
    import trio

    from iota_p2p.cli.run_id import parse_run_id
    from iota_p2p.leaving import leave_at_once
    from iota_p2p.peer_process import PeerOptions, run_peer
    from iota_p2p.run.spec import RunId

    options = PeerOptions(
        home=home or default_home(),
        bootstrap=tuple(bootstrap or ()),
        listen=tuple(listen or ("/ip4/0.0.0.0/tcp/0",)),
        announce=tuple(announce or ()),
        relay=relay,
        reachability=reachability,
        passphrase_file=passphrase_file,
        binary=p2pd,
        as_json=as_json,
        run_file=run,
        run_id=None if run_id is None else RunId(parse_run_id(run_id)),
        memory_bytes=None if memory is None else memory * 2**20,
        kept_bytes=None if keep is None else keep * 2**20,
        threads=threads,
        validate=validate,
    )
    trio.run(run_peer, options)
    leave_at_once()
