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
    Paths,
    Rpc,
    contract_at,
    sender,
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
        _write_vote(vote, target, settlement, home, account)
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


def _write_vote(
    path: Path, target: "SettlementContract", settlement: "Settlement", home: Path | None, account_file: Path | None
) -> None:
    """Sign once for an epoch and round, whatever happens in between: two different votes cost the bond."""
    from iota_p2p.key_store import load_key
    from iota_p2p.ledger.ledger import FILE_NAME, open_ledger
    from iota_p2p.settlement import account as accounts
    from iota_p2p.settlement.voting import seal_vote
    from iota_p2p_protocols.message import open_signed
    from iota_p2p_protocols.settlement.settlement_vote import SettlementVote

    folder = home or default_home()
    identity = load_key(key_path(folder))
    account = accounts.load_account(account_file or folder / accounts.FILE_NAME)
    address = target.signing_address()
    with open_ledger(folder / FILE_NAME) as ledger:
        envelope = ledger.sign_once(
            f"settlement-vote/{address.contract.hex()}",
            settlement.epoch << 8 | settlement.round,
            lambda: seal_vote(identity, account, address, settlement, int(time.time())),
        )
    if open_signed(envelope, SettlementVote).payload.settlement != settlement:
        raise UserError(
            f"this validator has voted for another settlement of epoch {settlement.epoch}: a second vote "
            "would cost its bond"
        )
    try:
        path.write_bytes(envelope)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
