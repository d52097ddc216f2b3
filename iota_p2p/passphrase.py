"""How the passphrase of a key is asked for, or read from a file."""

from pathlib import Path

import typer

from iota_p2p_crypto.errors import UserError

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
