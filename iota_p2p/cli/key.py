"""`iota-p2p key`: make an identity, and show whose it is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from iota_p2p.home import key_path
from iota_p2p.key_store import create_key, load_key, peer_id_of_key, read_key_file
from iota_p2p.passphrase import ask_new_passphrase, ask_passphrase, read_passphrase
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
    encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in read_key_file(path)
    if encrypted:
        peer_id_of_key(path)  # a damaged file is named before a passphrase is asked for
        passphrase = read_passphrase(passphrase_file) if passphrase_file else ask_passphrase(path)
        peer_id = load_key(path, passphrase).peer_id
    else:
        peer_id = load_key(path).peer_id
    fields = {
        "path": str(path),
        "peer_id": peer_id,
        "public_key": public_key_of(peer_id).hex(),
        "encrypted": encrypted,
    }
    if as_json:
        typer.echo(json.dumps(fields))
    else:
        for name, value in fields.items():
            shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            typer.echo(f"{name.replace('_', ' '):<12}{shown}")
