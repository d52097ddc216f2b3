"""`iota-p2p key`: make an identity, show whose it is, and say where it is paid."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from iota_p2p.home import default_home, key_path
from iota_p2p.key_store import create_key
from iota_p2p.passphrase import ask_new_passphrase, is_encrypted, read_passphrase, unlock_key
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import public_key_of

app = typer.Typer(no_args_is_help=True, help="Make and show identity keys.", rich_markup_mode=None)

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Read the passphrase from the first line of this file.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command(name="new")
def new(
    out: Annotated[Path | None, typer.Option(help="Where to write it.  [default: identity.pem in the home]")] = None,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Ask for a passphrase to protect it.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make a new identity key; an existing file is never overwritten.

    \b
    Examples:
      iota-p2p key new
      iota-p2p key new --out work.pem --encrypt
    """
    passphrase = None
    if passphrase_file is not None:
        passphrase = read_passphrase(passphrase_file)
    path = out or key_path(None)
    if encrypt and passphrase is None:
        if path.exists():  # before the user types a passphrase for nothing
            raise UserError(f"{path} exists and is not overwritten: choose another --out, or move it away")
        passphrase = ask_new_passphrase()
    identity = create_key(path, passphrase)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "peer_id": identity.peer_id, "encrypted": passphrase is not None}))
    else:
        typer.echo(f"peer id  {identity.peer_id}")
        typer.echo(f"key      {path} (keep it secret, keep a copy: it cannot be made again)")


@app.command(name="show")
def show(
    file: Annotated[Path | None, typer.Argument(help="The key file.  [default: identity.pem in the home]")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Check a key file and print its peer id and public key; never its secret.

    \b
    Examples:
      iota-p2p key show
      iota-p2p key show work.pem --json
    """
    path = file or key_path(None)
    peer_id = unlock_key(path, passphrase_file).peer_id
    fields = {
        "path": str(path),
        "peer_id": peer_id,
        "public_key": public_key_of(peer_id).hex(),
        "encrypted": is_encrypted(path),
    }
    if as_json:
        typer.echo(json.dumps(fields))
    else:
        for name, value in fields.items():
            shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            typer.echo(f"{name.replace('_', ' '):<12}{shown}")


@app.command(name="payout")
def payout(
    run_id: Annotated[str, typer.Option("--run-id", metavar="HEX", help="The run in which it is to be paid.")],
    out: Annotated[Path, typer.Option(help="Where to write the signed binding.")],
    account: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The account's key.  [default: account.key in the home]")
    ] = None,
    new_account: Annotated[bool, typer.Option("--new-account", help="Make the account first.")] = False,
    file: Annotated[
        Path | None, typer.Option("--key", help="The key file.  [default: identity.pem in the home]")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Bind an EVM account to the peer: each signs for the other. A later binding replaces an earlier one.

    \b
    Examples:
      iota-p2p key payout --run-id 00...00 --new-account --out payout.env
      iota-p2p key payout --run-id 00...00 --account wallet.key --out payout.env
    """
    from iota_p2p.cli.chain_access import need_extra, write_file

    need_extra()

    from iota_p2p.cli.run_id import parse_run_id
    from iota_p2p.settlement import account as accounts
    from iota_p2p.settlement.voting import seal_binding

    run = parse_run_id(run_id)
    identity = unlock_key(file or key_path(None), passphrase_file)
    path = account or default_home() / accounts.FILE_NAME
    signer = accounts.create_account(path) if new_account else accounts.load_account(path)
    # Milliseconds grow from one binding to the next, whatever else is lost.
    envelope = seal_binding(identity, signer, run, int(time.time()), time.time_ns() // 1_000_000)
    write_file(out, envelope)
    fields = {"peer_id": identity.peer_id, "account": signer.address, "path": str(out)}
    if as_json:
        typer.echo(json.dumps(fields))
    else:
        typer.echo(f"peer id  {identity.peer_id}")
        typer.echo(f"account  {signer.address} (key {path}: keep it secret, keep a copy)")
        typer.echo(f"binding  {out}")
