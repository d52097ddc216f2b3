"""Key files: other tools read them, and no changed byte goes unnoticed."""

import subprocess
from pathlib import Path

import pytest

from iota_p2p_crypto.identity import Identity
from iota_p2p_crypto.keyfile import (
    KeyFileError,
    PassphraseError,
    decode_key_file,
    encode_key_file,
    peer_id_in_key_file,
)

IDENTITY = Identity.from_seed(bytes(range(32)))


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_key_file__round_trips(passphrase: bytes | None) -> None:
    data = encode_key_file(IDENTITY, passphrase)
    assert decode_key_file(data, passphrase) == IDENTITY
    assert peer_id_in_key_file(data) == IDENTITY.peer_id


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_key_file__is_readable_by_openssl(passphrase: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(encode_key_file(IDENTITY, passphrase))
    unlock = [] if passphrase is None else ["-passin", f"pass:{passphrase.decode()}"]
    done = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-pubout", "-outform", "DER", *unlock], check=True, capture_output=True
    )
    assert done.stdout.endswith(IDENTITY.public_key)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_key_file__reject_any_changed_byte(passphrase: bytes | None) -> None:
    data = encode_key_file(IDENTITY, passphrase)
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
        with pytest.raises(KeyFileError):
            decode_key_file(changed, passphrase)


def test_key_file__reject_truncated_or_extended() -> None:
    data = encode_key_file(IDENTITY)
    for changed in (*(data[:length] for length in range(len(data))), data + b"\n", b"\n" + data):
        with pytest.raises(KeyFileError):
            decode_key_file(changed)


def test_key_file__reject_oversized() -> None:
    with pytest.raises(KeyFileError, match="at most 4096 bytes"):
        decode_key_file(encode_key_file(IDENTITY) + b"x" * 4096)


def test_key_file__reject_a_key_of_another_peer_under_a_valid_digest() -> None:
    """Somebody who re-seals a swapped key still cannot make it pass for the peer it names."""
    other = Identity.from_seed(bytes(32))
    resealed = encode_key_file(other).replace(other.peer_id.encode(), IDENTITY.peer_id.encode())
    with pytest.raises(KeyFileError, match=f"names {IDENTITY.peer_id} but holds the key of {other.peer_id}"):
        decode_key_file(resealed)


@pytest.mark.parametrize(
    ("sealed_with", "opened_with", "fix"),
    [
        (b"right", b"wrong", "wrong passphrase"),
        (b"right", None, "give its passphrase"),
        (None, b"any", "give no passphrase"),
    ],
)
def test_key_file__reject_passphrase_that_does_not_fit(
    sealed_with: bytes | None, opened_with: bytes | None, fix: str
) -> None:
    with pytest.raises(PassphraseError, match=fix):
        decode_key_file(encode_key_file(IDENTITY, sealed_with), opened_with)
