"""What identities promise beyond their vectors."""

import pytest

from iota_p2p_crypto.errors import LocalProtocolError
from iota_p2p_crypto.identity import Identity, parse_peer_id, public_key_of, verify_signature

SEED = bytes(range(32))


def test_identity__does_not_show_its_seed() -> None:
    identity = Identity.from_seed(SEED)
    shown = f"{identity!r} {identity!s}"
    assert identity.peer_id in shown
    assert SEED.hex() not in shown
    assert repr(SEED) not in shown


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_seed__is_our_own_fault_when_its_length_is_wrong(length: int) -> None:
    with pytest.raises(LocalProtocolError):
        Identity.from_seed(bytes(length))


def test_peer_id__contains_the_key_that_verifies() -> None:
    identity = Identity.from_seed(SEED)
    assert public_key_of(parse_peer_id(identity.peer_id)) == identity.public_key
    verify_signature(identity.peer_id, b"message", identity.sign(b"message"))


def test_peer_id__starts_as_every_ed25519_id_does() -> None:
    assert all(Identity.from_seed(bytes([n]) * 32).peer_id.startswith("12D3KooW") for n in range(16))
