"""`iota-p2p settle`: sign an epoch's payouts as a validator, or bring the signatures to the contract."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota_p2p.cli.chain_access import (
    AccountFile,
    AsJson,
    Confirmations,
    Contract,
    Home,
    PassphraseFile,
    Paths,
    Rpc,
    contract_at,
    sender,
    write_file,
)
from iota_p2p.home import default_home, key_path
from iota_p2p_crypto.errors import UserError

if TYPE_CHECKING:
    from iota_p2p.settlement.contract_client import SettlementContract
    from iota_p2p_protocols.settlement.typed_data import Settlement


def settle(
    paths: Paths,
    epoch: Annotated[int, typer.Option("--epoch", metavar="E", min=0, help="Which epoch.")],
    rpc: Rpc,
    contract: Contract,
    vote: Annotated[
        Path | None, typer.Option("--vote", metavar="FILE", help="Sign as a validator, and write the vote here.")
    ] = None,
    home: Home = None,
    account: AccountFile = None,
    passphrase_file: PassphraseFile = None,
    confirmations: Confirmations = 0,
    as_json: AsJson = False,
) -> None:
    """Settle an epoch's signed result on chain; with --vote only sign it.

    PATHS hold the result, the payout bindings and, for settling, the votes of a quorum. An epoch that somebody else
    settles alike in the same moment is settled.

    \b
    Examples:
      iota-p2p settle ./testnet --epoch 3 --rpc URL --contract ADDRESS --vote mine.vote
      iota-p2p settle ./testnet *.vote --epoch 3 --rpc URL --contract ADDRESS
    """
    target = contract_at(rpc, contract)

    from iota_p2p.audit.archive import read_archive
    from iota_p2p.settlement.account import recover_typed
    from iota_p2p.settlement.records import settlement_records
    from iota_p2p_protocols.settlement.settlement_vote import signatures_for
    from iota_p2p_protocols.settlement.typed_data import Settlement

    records = settlement_records(read_archive(paths), target.terms().run_id)
    tree = records.the_tree(epoch)
    round_ = target.epoch_state(epoch).round
    settlement = Settlement(records.run_id, epoch, round_, bytes(tree.root), tree.total_wei)
    if vote is not None:
        envelope = _signed_vote(target, settlement, home or default_home(), account, passphrase_file)
        write_file(vote, envelope)
        typer.echo(f"vote     {vote} for root {settlement.root.hex()}, {settlement.total_wei:,} wei")
        return
    signatures = signatures_for(target.signing_address(), settlement, records.votes, recover_typed, target.seats(epoch))
    quorum = target.quorum(epoch)
    if len(signatures) < quorum and not target.epoch_state(epoch).is_settled:
        raise UserError(f"epoch {epoch} needs the votes of {quorum} validators, these files hold {len(signatures)}")
    with sender(rpc, home, account, confirmations) as ours:
        outcome = target.settle(ours.submitter, settlement, signatures)
    fields = {"epoch": epoch, "root": settlement.root.hex(), "total_wei": settlement.total_wei, "by_us": outcome.by_us}
    if as_json:
        typer.echo(json.dumps(fields))
    else:
        by = "settled" if outcome.by_us else "settled by somebody else, alike"
        typer.echo(f"epoch {epoch} is {by}: {len(tree.payouts)} payouts, {tree.total_wei:,} wei")


def _signed_vote(
    target: "SettlementContract",
    settlement: "Settlement",
    home: Path,
    account_file: Path | None,
    passphrase_file: Path | None,
) -> bytes:
    """Return the vote of a home's peer."""
    from iota_p2p.ledger.ledger import FILE_NAME, open_ledger
    from iota_p2p.passphrase import unlock_key
    from iota_p2p.settlement import account as accounts
    from iota_p2p.settlement.voting import vote_once

    identity = unlock_key(key_path(home), passphrase_file)
    account = accounts.load_account(account_file or home / accounts.FILE_NAME)
    with open_ledger(home / FILE_NAME) as ledger:
        return vote_once(ledger, identity, account, target.signing_address(), settlement, now_s=int(time.time()))
