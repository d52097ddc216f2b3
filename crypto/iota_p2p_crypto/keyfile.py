"""The identity key file's bytes: PKCS#8 PEM that other tools read, under one line that seals it.

    iota-p2p identity 12D3KooW... sha256 <64 hex digits>
    -----BEGIN PRIVATE KEY-----
    ...

RFC 7468 allows explanatory text before the first boundary, so openssl reads the file as it is. An Ed25519 key has
no redundancy of its own: a flipped bit in it is simply another key. The first line names the peer id the key must
have and the digest of everything after it, so that any changed byte is noticed and named, passphrase or not.
"""

import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity, PeerId

MAX_KEY_FILE_BYTES = 4096  # an encrypted one has about 500
_SEAL = re.compile(rb"iota-p2p identity ([1-9A-HJ-NP-Za-km-z]{46,64}) sha256 ([0-9a-f]{64})\n")


class KeyFileError(UserError):
    """A key file that cannot be used: damaged, foreign, or locked by a passphrase."""


class PassphraseError(KeyFileError):
    """The key file is encrypted and the passphrase is missing or wrong."""


def encode_key_file(identity: Identity, passphrase: bytes | None = None) -> bytes:
    """Return the key file of an identity.

    With a passphrase the key is encrypted (PBES2: PBKDF2 and AES-256-CBC); the salt is the library's own.
    """
    protection: KeySerializationEncryption = (
        NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    )
    key = Ed25519PrivateKey.from_private_bytes(identity.seed)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
    seal = f"iota-p2p identity {identity.peer_id} sha256 {hashlib.sha256(pem).hexdigest()}\n"
    return seal.encode("ascii") + pem


def decode_key_file(data: bytes, passphrase: bytes | None = None) -> Identity:
    """Return the identity in a key file.

    Raises:
        PassphraseError: if the passphrase is missing or wrong, or one is given for a file that has none.
        KeyFileError: if the file is not one of ours or any byte of it has changed.
    """
    peer_id, pem = _unsealed(data)
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError as error:  # the library's way to say that a passphrase is missing or superfluous
        fix = "give its passphrase" if passphrase is None else "it is not encrypted: give no passphrase"
        raise PassphraseError(f"the key file of {peer_id} needs another way in: {fix}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase is not None:
            raise PassphraseError(f"wrong passphrase for the key file of {peer_id}") from error
        raise KeyFileError(f"the key file of {peer_id} holds no readable PKCS#8 key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"expected an Ed25519 key in the key file of {peer_id}, got another kind")
    identity = Identity.from_seed(key.private_bytes_raw())
    if identity.peer_id != peer_id:
        raise KeyFileError(f"the key file names {peer_id} but holds the key of {identity.peer_id}")
    return identity


def peer_id_in_key_file(data: bytes) -> PeerId:
    """Return the peer id a key file is sealed for, without needing its passphrase.

    Raises:
        KeyFileError: as `decode_key_file`, as far as can be told without the key.
    """
    return _unsealed(data)[0]


def _unsealed(data: bytes) -> tuple[PeerId, bytes]:
    if len(data) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"expected a key file of at most {MAX_KEY_FILE_BYTES} bytes, got {len(data)}")
    match = _SEAL.match(data)
    if match is None:
        raise KeyFileError("expected a first line 'iota-p2p identity ... sha256 ...': not a key file, or a damaged one")
    pem = data[match.end() :]
    if hashlib.sha256(pem).hexdigest().encode("ascii") != match[2]:
        raise KeyFileError("the key file is damaged: its contents do not match the digest in its first line")
    return PeerId(match[1].decode("ascii")), pem
