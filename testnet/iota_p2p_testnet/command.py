"""`iota-p2p testnet`: the verb. It is an entry point (group `iota_p2p.verbs`), for a peer may not import a testnet.

Imports nothing heavy: the command loads it at every start, whatever the verb.
"""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

MAX_PEERS = 512  # beyond any machine that one launcher sees


def testnet(
    peers: Annotated[int, typer.Option(min=1, max=MAX_PEERS, help="How many peers.")] = 8,
    stages: Annotated[
        int | None, typer.Option(min=1, help="Cut the model into this many stages.  [default: the run's; 4]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Stop after so many epochs of most peers.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after this long.")] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A run made by `run new`.  [default: the tiny config]")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Text files to train on.  [default: Python's own standard library]"),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Keep everything here, and go on from it.  [default: a temporary folder]")
    ] = None,
    kill: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="Kill peers; see above. May be given several times."),
    ] = None,
    adversary: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COUNT", help="Let peers cheat; see above. May be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights, and of whom --kill draws.")] = 0,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as JSON, also after Ctrl-C.")
    ] = None,
    settle: Annotated[
        bool, typer.Option("--settle/--no-settle", help="Pay each epoch's shares on a local chain.")
    ] = True,
    plain: Annotated[bool, typer.Option("--plain", help="Lines of text, even on a terminal.")] = False,
) -> None:
    """Run a local network of real peers, each a process with its own daemon, that train a model together.

    The first peer is given the run; every other one only the address of a peer, as anybody's would be. Ends at
    --epochs or --minutes, whichever comes first, else at Ctrl-C. With --home, each peer's log is in
    HOME/peers/NN/peer.log, and the next start with the same --home goes on.

    --kill kills with SIGKILL, counting from when all peers run:

    \b
      3@10s+5s             peer 3 after 10 s; it is back 5 s later (without +5s, never)
      random@20s           one peer, drawn, after 20 s
      random:2@30s/20s+8s  two peers after 30 s and again every 20 s, each back 8 s later
      stage:1@40s          all peers that serve stage 1 then, at once

    --adversary lets the last peers cheat when replicas merge: bad-reducer, colluding-reducers (wrong results),
    garbage-reducers (results that do not decode), poisoned, scaled, nan (bad contributions), silent-convener,
    equivocating-convener, two-results, wrong-chunks (of blocks, results and states). See also --stages: there must be
    several replicas of a stage. Or in their work: lazy (never goes backward), random-output, poisoned-gradient (sends
    back the opposite), stale (old weights), lying-tail (understates losses), copying (passes on what it is sent),
    colluding-stage (all of them send the opposite), unmerged (keeps its own weights). Or as validators:
    false-validator (false records), withholding-validator (none), lying-validator (false records, two records, none, in
    turn).

    \b
    Examples:
      iota-p2p testnet
      iota-p2p testnet --peers 8 --stages 4 --epochs 4 --summary result.json
      iota-p2p testnet --minutes 5 --kill random@20s+5s --kill 3@40s+5s --plain
      iota-p2p testnet --peers 8 --stages 2 --adversary bad-reducer=1 --adversary nan=1
      iota-p2p testnet --home ~/net --data 'books/**/*.txt'

    Exit code 0 if it trained and no peer ended by itself, 1 otherwise, 130 after Ctrl-C.
    """
    # Ctrl-C waits while this imports, so that it always ends with a summary; `hold_session` lets it through.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from iota_p2p_testnet.session import Wishes, hold_session

    wishes = Wishes(
        num_peers=peers,
        num_stages=stages,
        epochs=epochs,
        minutes=minutes,
        run_file=run,
        data=tuple(data or ()),
        home=home,
        kills=tuple(kill or ()),
        adversaries=tuple(adversary or ()),
        seed=seed,
        summary=summary,
        plain=plain or not sys.stdout.isatty(),
        settle=settle,
    )
    raise typer.Exit(hold_session(wishes))
