"""The identity key on disk: created once, never overwritten, never read if others can read it too."""

import os
import secrets
import stat
import sys
from pathlib import Path

from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import SEED_BYTES, Identity, PeerId
from iota_p2p_crypto.keyfile import (
    MAX_KEY_FILE_BYTES,
    KeyFileError,
    PassphraseError,
    decode_key_file,
    encode_key_file,
    peer_id_in_key_file,
)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PRIVATE = stat.S_IRUSR | stat.S_IWUSR  # 0600


def create_key(path: Path, passphrase: bytes | None = None) -> Identity:
    """Make a new identity and write its key file, readable by its owner only.

    The file appears whole or not at all, whatever interrupts us.

    Raises:
        UserError: if the file exists, or cannot be written.
    """
    identity = Identity.from_seed(secrets.token_bytes(SEED_BYTES))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"cannot use the folder {path.parent}: {error.strerror}") from error
    try:
        _write_private(temporary, encode_key_file(identity, passphrase))
        os.link(temporary, path)  # unlike rename, fails if the name is taken
    except FileExistsError as error:
        raise UserError(f"{path} exists and is not overwritten: choose another --out, or move it away") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return identity


def load_key(path: Path, passphrase: bytes | None = None) -> Identity:
    """Read an identity.

    Raises:
        PassphraseError: if the file is encrypted and the passphrase is missing or wrong.
        UserError: if the file is missing, readable by others, damaged, or not a key file.
    """
    data = read_key_file(path)
    try:
        return decode_key_file(data, passphrase)
    except PassphraseError as error:
        raise PassphraseError(f"{path}: {error}") from error
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from error


def peer_id_of_key(path: Path) -> PeerId:
    """Return the peer id of a key file without unlocking it; raises UserError as `load_key`."""
    data = read_key_file(path)
    try:
        return peer_id_in_key_file(data)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from error


def read_key_file(path: Path) -> bytes:
    """Return a key file's bytes; raises UserError if it is missing or anybody else may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UserError(f"expected a key file at {path}, got something else")
            # Windows keeps no such bits; its home folders are private by their access lists.
            if sys.platform != "win32" and mode & _OTHERS:
                raise UserError(f"others may read {path} (mode {mode & 0o777:04o}): run 'chmod 600 {path}'")
            return file.read(MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"there is no key at {path}: make one with 'iota-p2p key new --out {path}'") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
