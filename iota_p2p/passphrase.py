"""How the passphrase of a key is asked for, or read from a file, and the key unlocked by it."""

from pathlib import Path

import typer

from iota_p2p.key_store import load_key, peer_id_of_key, read_key_file
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity

MAX_PASSPHRASE_BYTES = 1024  # nobody types more; a wrong path does not read a whole disk


def read_passphrase(file: Path) -> bytes:
    """Return the first line of a passphrase file.

    Raises:
        UserError: if it cannot be read or its first line is empty.
    """
    try:
        with file.open("rb") as handle:
            line = handle.readline(MAX_PASSPHRASE_BYTES).rstrip(b"\r\n")
    except OSError as error:
        raise UserError(f"cannot read the passphrase file {file}: {error.strerror}") from error
    if not line:
        raise UserError(f"the first line of the passphrase file {file} is empty")
    return line


def ask_new_passphrase() -> bytes:
    """Ask for a passphrase twice on the terminal; Ctrl-C or end of input leaves with nothing done."""
    answer: str = typer.prompt("Passphrase for the new key", hide_input=True, confirmation_prompt=True)
    return answer.encode("utf-8")


def ask_passphrase(path: Path) -> bytes:
    """Ask for the passphrase of a key file on the terminal."""
    answer: str = typer.prompt(f"Passphrase of {path}", hide_input=True)
    return answer.encode("utf-8")


def is_encrypted(path: Path) -> bool:
    """Return whether a key file needs a passphrase; raises UserError if it cannot be read."""
    return b"BEGIN ENCRYPTED PRIVATE KEY" in read_key_file(path)


def unlock_key(path: Path, passphrase_file: Path | None = None) -> Identity:
    """Return the identity in a key file, with the passphrase from a file or from the terminal if it needs one.

    Raises:
        UserError: as `load_key`.
    """
    if not is_encrypted(path):
        return load_key(path)
    peer_id_of_key(path)  # a damaged file is named before a passphrase is asked for
    return load_key(path, read_passphrase(passphrase_file) if passphrase_file else ask_passphrase(path))
