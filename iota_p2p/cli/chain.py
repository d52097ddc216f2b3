"""`iota-p2p chain`: a local EVM, and the contract that settles a run."""

import json
import os
import signal
import sys
import threading
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota_p2p.cli import exit_codes
from iota_p2p.cli.chain_access import (
    AccountFile,
    AsJson,
    Confirmations,
    Contract,
    Home,
    Rpc,
    contract_at,
    need_extra,
    sender,
)
from iota_p2p.cli.run_id import parse_run_id
from iota_p2p_crypto.errors import UserError

if TYPE_CHECKING:  # a verb imports what it needs when it runs
    from iota_p2p.settlement.dev_chain import DevChainServer

ETHER = 10**18

app = typer.Typer(no_args_is_help=True, help="The local EVM, and the contract of a run.", rich_markup_mode=None)


@app.command(name="dev")
def dev(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On loopback; 0 takes a free one.")] = 0,
    accounts: Annotated[int, typer.Option(min=1, max=1024, help="How many funded accounts.")] = 16,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the chain here, and go on from it.  [default: nothing]")
    ] = None,
    attached: Annotated[
        bool, typer.Option("--attached", help="End when standard input does, as when its parent is killed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a local EVM until Ctrl-C: real rules, no consensus, no value.

    Everybody knows the keys of its accounts: they are for this chain only.

    \b
    Examples:
      iota-p2p chain dev
      iota-p2p chain dev --port 8545 --state chain.log --json
    """
    need_extra()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as cleanly as Ctrl-C

    from iota_p2p.settlement.chain_log import open_chain_log
    from iota_p2p.settlement.dev_chain import DevChainServer, dev_accounts

    with nullcontext() if state is None else open_chain_log(state, accounts) as log:
        try:
            server = DevChainServer(port, accounts, log)
        except OSError as error:
            raise UserError(f"cannot listen on port {port}: {error.strerror}; choose another --port") from error
        with server:
            funded = dev_accounts(accounts if log is None else log.num_accounts)
            if as_json:
                told = {"rpc_url": server.url, "accounts": [asdict(account) for account in funded]}
                typer.echo(json.dumps(told))
            else:
                typer.echo(f"rpc       {server.url}")
                for account in funded:
                    typer.echo(f"account   {account.address}  key {account.key}")
                kept = "nothing is kept" if state is None else f"{state} keeps it"
                typer.echo(f"a local chain: no consensus, no value. Ctrl-C stops it, and {kept}")
            if attached:
                threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
            try:
                server.serve_forever(poll_interval=0.1)
            except KeyboardInterrupt:
                raise typer.Exit(exit_codes.INTERRUPTED) from None


def _stop_at_end_of_input(server: "DevChainServer") -> None:
    while os.read(sys.stdin.fileno(), 4096):  # the system ends it with the last process that could write to it
        pass
    server.shutdown()


@app.command(name="deploy")
def deploy(
    rpc: Rpc,
    run_id: Annotated[str, typer.Option("--run-id", metavar="HEX", help="Which run it settles.")],
    bond: Annotated[int, typer.Option(metavar="WEI", min=1, help="What a validator's seat costs.")] = ETHER,
    min_seats: Annotated[int, typer.Option(min=1, max=64, help="Fewer validators settle nothing.")] = 4,
    dispute: Annotated[int, typer.Option(metavar="SECONDS", min=0, help="From a settlement to its claims.")] = 86_400,
    withdrawal: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, help="From leaving to the bond; at least twice --dispute.")
    ] = 7 * 86_400,
    home: Home = None,
    account: AccountFile = None,
    confirmations: Confirmations = 0,
    as_json: AsJson = False,
) -> None:
    """Create the contract of a run; its terms never change. Once for each run and terms, however often it is called.

    \b
    Example:
      iota-p2p chain deploy --rpc http://127.0.0.1:8545 --run-id 00...00 --dispute 10 --withdrawal 60
    """
    need_extra()

    from iota_p2p.settlement.contract_client import deploy as deploy_contract
    from iota_p2p.settlement.contract_state import Terms

    if withdrawal < 2 * dispute:
        raise UserError(f"--withdrawal must be at least twice --dispute: {2 * dispute}")
    terms = Terms(parse_run_id(run_id), bond, min_seats, dispute, withdrawal)
    with sender(rpc, home, account, confirmations) as ours:
        purpose = f"{run_id.lower()}/{bond}/{min_seats}/{dispute}/{withdrawal}"
        contract = deploy_contract(ours.w3, ours.submitter, terms, purpose)
    typer.echo(json.dumps({"contract": contract.address}) if as_json else f"contract  {contract.address}")


@app.command(name="fund")
def fund(
    rpc: Rpc,
    contract: Contract,
    amount: Annotated[int, typer.Option(metavar="WEI", min=1, help="How much to add to the pot.")],
    purpose: Annotated[str, typer.Option(help="Its name: called again with the same one, nothing more is paid.")],
    home: Home = None,
    account: AccountFile = None,
    confirmations: Confirmations = 0,
) -> None:
    """Pay into the pot that settlements share out.

    \b
    Example:
      iota-p2p chain fund --rpc URL --contract ADDRESS --amount 1000000000000000000 --purpose november
    """
    with sender(rpc, home, account, confirmations) as ours:
        target = contract_at(rpc, contract)
        target.fund(ours.submitter, amount, purpose)
        typer.echo(f"pot  {ours.submitter.ask(target.treasury).pot_wei:,} wei")


@app.command(name="register")
def register(
    rpc: Rpc,
    contract: Contract,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The peer's key.  [default: in the home]")] = None,
    home: Home = None,
    account: AccountFile = None,
    confirmations: Confirmations = 0,
) -> None:
    """Take a validator's seat for the account, at the price of one bond.

    \b
    Example:
      iota-p2p chain register --rpc URL --contract ADDRESS
    """
    from iota_p2p.home import key_path
    from iota_p2p.key_store import peer_id_of_key

    peer_id = peer_id_of_key(key or key_path(home))
    with sender(rpc, home, account, confirmations) as ours:
        target = contract_at(rpc, contract)
        target.register(ours.submitter, ours.address, peer_id, ours.submitter.ask(target.free_seat))
        seat = ours.submitter.ask(lambda: target.seat(ours.address))
    if seat is not None:
        typer.echo(f"seat {seat.index} from epoch {seat.since} on")


@app.command(name="show")
def show(rpc: Rpc, contract: Contract, as_json: AsJson = False) -> None:
    """Print a contract's terms, pot and settled epochs.

    \b
    Example:
      iota-p2p chain show --rpc URL --contract ADDRESS
    """
    target = contract_at(rpc, contract)
    terms, treasury = target.terms(), target.treasury()
    epochs = sorted({event.epoch for event in target.settled_events()})
    states = {epoch: target.epoch_state(epoch) for epoch in epochs}
    if as_json:
        settled = [
            {"epoch": epoch, "root": state.root.hex(), "remaining_wei": state.remaining_wei, "round": state.round}
            for epoch, state in states.items()
            if state.is_settled
        ]
        fields = {**asdict(terms), "run_id": terms.run_id.hex(), **asdict(treasury), "settled": settled}
        typer.echo(json.dumps(fields))
        return
    typer.echo(f"run      {terms.run_id.hex()}")
    typer.echo(f"pot      {treasury.pot_wei:,} wei")
    typer.echo(f"seats    {treasury.seats} at {terms.bond_wei:,} wei, at least {terms.min_seats}")
    typer.echo(f"dispute  {terms.dispute_s} s, withdrawal {terms.withdrawal_s} s")
    for epoch, state in states.items():
        standing = f"{state.remaining_wei:,} wei unclaimed" if state.is_settled else "void"
        typer.echo(f"epoch    {epoch}: {standing}, {len(state.signers)} signers")
