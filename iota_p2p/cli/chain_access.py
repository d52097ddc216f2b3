"""What the verbs of settlement share: their options, and the way to the chain."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota_p2p.home import default_home
from iota_p2p_crypto.errors import UserError

if TYPE_CHECKING:  # a verb imports what it needs when it runs
    from web3 import Web3

    from iota_p2p.settlement.contract_client import SettlementContract
    from iota_p2p.settlement.submitter import Submitter

Rpc = Annotated[str, typer.Option("--rpc", metavar="URL", help="The EVM network's RPC.")]
Contract = Annotated[str, typer.Option("--contract", metavar="ADDRESS", help="The settlement contract.")]
Home = Annotated[Path | None, typer.Option("--home", help="Where keys and the journal are.  [default: ~/.iota-p2p]")]
AccountFile = Annotated[
    Path | None,
    typer.Option("--account", metavar="FILE", help="The account's key.  [default: account.key in the home]"),
]
Confirmations = Annotated[
    int, typer.Option("--confirmations", min=0, max=128, help="Blocks to see on top before it counts.")
]
Paths = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Home folders, bundles, envelopes.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="Read the key's passphrase from this file's first line."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@dataclass(frozen=True, slots=True)
class Sender:
    """An account at a chain, ready to send."""

    w3: "Web3"
    address: str
    submitter: "Submitter"


def need_extra() -> None:
    """Say what to install if the extra is not there."""
    if find_spec("web3") is None or find_spec("eth_account") is None:
        raise UserError("this verb needs the extra settlement: pip install 'iota-p2p[settlement]'")


def write_file(path: Path, data: bytes) -> None:
    """Write a small file, or say why not."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def contract_at(rpc: str, address: str) -> "SettlementContract":
    """Return the contract at an address."""
    need_extra()

    from eth_utils.address import is_address

    from iota_p2p.settlement.contract_client import SettlementContract
    from iota_p2p.settlement.rpc import connect

    if not is_address(address):
        raise UserError(f"expected a contract's address of 40 hex digits, got {address!r:.80}")
    return SettlementContract(connect(rpc), address)


@contextmanager
def sender(rpc: str, home: Path | None, account_file: Path | None, confirmations: int = 0) -> Iterator[Sender]:
    """Yield an account's way to a chain, with the journal in the home."""
    need_extra()

    from eth_utils.address import to_canonical_address

    from iota_p2p.settlement.account import FILE_NAME, load_account
    from iota_p2p.settlement.journal import FILE_NAME as JOURNAL
    from iota_p2p.settlement.journal import open_journal
    from iota_p2p.settlement.rpc import connect, genesis_of
    from iota_p2p.settlement.submitter import Patience, Submitter

    folder = home or default_home()
    account = load_account(account_file or folder / FILE_NAME)
    w3 = connect(rpc)
    journal = open_journal(folder / JOURNAL, genesis_of(w3), to_canonical_address(account.address))
    try:
        yield Sender(w3, account.address, Submitter(w3, account, journal, Patience(confirmations=confirmations)))
    finally:
        journal.close()
