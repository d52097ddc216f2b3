"""Accounts of the EVM: their keys on disk, and signatures in the 64-byte form the contract takes."""

import os
import stat
from pathlib import Path

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_typing import Hash32
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError as KeyValidationError

from iota_p2p_crypto.errors import InvalidSignatureError, UserError
from iota_p2p_protocols.settlement.typed_data import COMPACT_SIGNATURE_BYTES, TypedData

FILE_NAME = "account.key"
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_LOW_255 = 2**255 - 1
_MAX_FILE_BYTES = 128  # 64 hex digits, perhaps with 0x and a newline


def typed_digest(typed_data: TypedData) -> bytes:
    """Return the EIP-712 digest that is signed."""
    message = encode_typed_data(full_message=typed_data)
    return keccak(b"\x19" + message.version + message.header + message.body)


def sign_typed(account: LocalAccount, typed_data: TypedData) -> bytes:
    """Return an account's signature of typed data: r, and s with the parity of y in its top bit."""
    signature = account.unsafe_sign_hash(Hash32(typed_digest(typed_data)))  # the digest is ours, of typed data
    return signature.r.to_bytes(32, "big") + ((signature.v - 27) << 255 | signature.s).to_bytes(32, "big")


def recover_typed(typed_data: TypedData, signature: bytes) -> bytes:
    """Return the account that signed, as 20 bytes; the `Recover` that pure code asks for.

    Raises:
        InvalidSignatureError: if nobody did, or the signature is the malleable twin of one.
    """
    if len(signature) != COMPACT_SIGNATURE_BYTES:
        raise InvalidSignatureError(
            "evm-signature", f"expected {COMPACT_SIGNATURE_BYTES} bytes of signature, got {len(signature)}"
        )
    r, vs = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if vs & _LOW_255 > _HALF_ORDER:
        raise InvalidSignatureError("evm-signature-high-s", "expected the signature with the low s, got its twin")
    try:
        key = Signature(vrs=(vs >> 255, r, vs & _LOW_255)).recover_public_key_from_msg_hash(typed_digest(typed_data))
    except (BadSignature, KeyValidationError) as error:
        raise InvalidSignatureError("evm-signature", "expected a signature, got one of nobody") from error
    address: bytes = key.to_canonical_address()
    return address


def create_account(path: Path) -> LocalAccount:
    """Make a new account and write its key, readable by its owner only; an existing file is never overwritten."""
    secret = bytes(Account.create().key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
        with os.fdopen(handle, "w") as file:
            file.write(f"0x{secret.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UserError(f"{path} exists and is not overwritten: choose another file, or move it away") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return _account(secret)


def load_account(path: Path) -> LocalAccount:
    """Return the account whose key is in a file, as 64 hex digits.

    Raises:
        UserError: if the file is missing, holds no key, or others can read it.
    """
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"others can read {path}: chmod 600 {path}")
        text = path.read_bytes()[:_MAX_FILE_BYTES].decode("ascii", "replace").strip()
        secret = bytes.fromhex(text.removeprefix("0x"))
        return _account(secret)
    except FileNotFoundError as error:
        raise UserError(f"there is no account in {path}: make one with iota-p2p key payout --new-account") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyValidationError) as error:
        raise UserError(f"expected an account's key of 64 hex digits in {path}, got something else") from error


def _account(secret: bytes) -> LocalAccount:
    account: LocalAccount = Account.from_key(secret)
    return account
