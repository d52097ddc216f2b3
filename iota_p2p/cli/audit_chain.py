"""`iota-p2p audit chain`: does the contract hold and pay what was signed?"""

import json

import typer

from iota_p2p.cli.chain_access import AsJson, Contract, Paths, Rpc, contract_at


def audit_chain_command(paths: Paths, rpc: Rpc, contract: Contract, as_json: AsJson = False) -> None:
    """Compare a contract's state with signed results; exits with 21 if they disagree.

    Whether the results themselves hold is what `audit verify` says.

    \b
    Example:
      iota-p2p audit chain ./testnet --rpc URL --contract ADDRESS
    """
    target = contract_at(rpc, contract)

    from iota_p2p.audit.archive import read_archive
    from iota_p2p.settlement.chain_audit import audit_chain
    from iota_p2p.settlement.records import settlement_records

    found = audit_chain(target, settlement_records(read_archive(paths), target.terms().run_id))
    if as_json:
        counts = {"epochs_settled": found.num_settled, "claims_paid": found.num_claimed, "total_paid": found.paid_wei}
        failures = [failure.to_json() for failure in found.failures]
        typer.echo(json.dumps({**counts, "pending": list(found.pending), "failures": failures}))
    else:
        typer.echo(f"{found.num_settled:>8,} epochs settled")
        typer.echo(f"{found.num_claimed:>8,} claims paid, {found.paid_wei:,} wei")
        typer.echo(f"{len(found.pending):>8,} results not settled yet")
        typer.echo("all of it agrees" if not found.failures else f"{len(found.failures)} failures:")
        for failure in found.failures:
            typer.echo(f"  {failure}")
    if found.failures:
        raise typer.Exit(min(failure.check for failure in found.failures))
