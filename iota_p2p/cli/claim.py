"""`iota-p2p claim`: bring home what a settled epoch pays."""

import json
from typing import Annotated

import typer

from iota_p2p.cli.chain_access import (
    AccountFile,
    AsJson,
    Confirmations,
    Contract,
    Home,
    Paths,
    Rpc,
    contract_at,
    sender,
)
from iota_p2p_crypto.errors import UserError


def claim(
    paths: Paths,
    rpc: Rpc,
    contract: Contract,
    epoch: Annotated[int | None, typer.Option("--epoch", metavar="E", min=0, help="Only this epoch.")] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="Claim for all accounts, not only ours.")] = False,
    home: Home = None,
    account: AccountFile = None,
    confirmations: Confirmations = 0,
    as_json: AsJson = False,
) -> None:
    """Claim what the account is owed; each share goes to the account it is meant for, whoever claims it.

    Epochs that are still in dispute or not settled are passed over; call it again later.

    \b
    Examples:
      iota-p2p claim ./testnet --rpc URL --contract ADDRESS
      iota-p2p claim scores.iota-bundle --epoch 3 --everybody --rpc URL --contract ADDRESS
    """
    target = contract_at(rpc, contract)

    from eth_utils.address import to_canonical_address

    from iota_p2p.audit.archive import read_archive
    from iota_p2p.settlement.claiming import claim_epoch
    from iota_p2p.settlement.records import settlement_records

    records = settlement_records(read_archive(paths), target.terms().run_id)
    epochs = sorted(records.results) if epoch is None else [epoch]
    if not records.results:
        raise UserError("these files hold no result of the contract's run")
    paid_wei = num_paid = 0
    waiting = []
    with sender(rpc, home, account, confirmations) as ours:
        only = None if everybody else to_canonical_address(ours.address)
        for each in epochs:
            report = claim_epoch(target, ours.submitter, records, each, only)
            paid_wei, num_paid = paid_wei + report.paid_wei, num_paid + report.num_paid
            if report.waits_for:
                waiting.append((each, report.waits_for))
    if as_json:
        typer.echo(json.dumps({"claims_paid": num_paid, "paid_wei": paid_wei, "waiting": dict(waiting)}))
        return
    for each, reason in waiting:
        typer.echo(f"epoch {each}: {reason}")
    typer.echo(f"{num_paid} claims paid, {paid_wei:,} wei")
