from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.commitment import MAX_VALUE_BYTES, check_reveal, commit
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, MalformedError, OversizedError
from iota_p2p_crypto.identity import Identity, PeerId

ALICE = Identity.from_seed(bytes(32)).peer_id
BOB = Identity.from_seed(bytes([1]) * 32).peer_id
SALT = bytes(range(32))
PURPOSE = "seed of epoch 3"
GOOD: dict[str, Any] = {
    "commitment": commit(ALICE, PURPOSE, b"value", SALT),
    "peer_id": ALICE,
    "purpose": PURPOSE,
    "value": b"value",
    "salt": SALT,
}


@given(purpose=st.text(max_size=30), value=st.binary(max_size=100), salt=st.binary(min_size=32, max_size=32))
def test_reveal__opens_its_own_commitment(purpose: str, value: bytes, salt: bytes) -> None:
    check_reveal(commit(ALICE, purpose, value, salt), ALICE, purpose, value, salt)


def test_reveal__does_not_open_a_copied_commitment() -> None:
    """Bob repeats Alice's commitment, waits for her reveal and repeats that too."""
    with pytest.raises(InvalidProofError) as caught:
        check_reveal(**{**GOOD, "peer_id": BOB})
    assert caught.value.rule == "reveal"
    assert BOB in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "error", "rule"),
    [
        ({"purpose": "seed of epoch 4"}, InvalidProofError, "reveal"),
        ({"value": b"other"}, InvalidProofError, "reveal"),
        ({"salt": bytes(32)}, InvalidProofError, "reveal"),
        ({"commitment": bytes(32)}, InvalidProofError, "reveal"),
        # The same bytes with the borders moved.
        ({"purpose": PURPOSE + "v", "value": b"alue"}, InvalidProofError, "reveal"),
        ({"commitment": b""}, MalformedError, "reveal-length"),
        ({"salt": SALT + b"\0"}, MalformedError, "reveal-length"),
        ({"value": bytes(MAX_VALUE_BYTES + 1)}, OversizedError, "reveal-value"),
        ({"peer_id": PeerId("nobody")}, MalformedError, "peer-id"),
    ],
)
def test_reveal__is_refused_by_name(changes: dict[str, Any], error: type[InvalidProofError], rule: str) -> None:
    check_reveal(**GOOD)
    with pytest.raises(error) as caught:
        check_reveal(**{**GOOD, **changes})
    assert caught.value.rule == rule


def test_commit__refuses_our_own_nonsense() -> None:
    with pytest.raises(LocalProtocolError):
        commit(ALICE, PURPOSE, b"value", b"short")
    with pytest.raises(LocalProtocolError):
        commit(ALICE, PURPOSE, bytes(MAX_VALUE_BYTES + 1), SALT)
