from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import SCORE, TREE_HEAD
from iota_p2p_crypto.envelope import merge_signatures, seal
from iota_p2p_crypto.errors import (
    InvalidSignatureError,
    LocalProtocolError,
    MalformedError,
    RemoteProtocolError,
    WrongRunError,
)
from iota_p2p_crypto.identity import Identity
from iota_p2p_crypto.merkle import EMPTY_ROOT, MAX_LEAVES
from iota_p2p_crypto.tree_head import MAX_TIMESTAMP_S, TreeHead, open_tree_head, sign_tree_head

OWNER = Identity.from_seed(bytes(32))
OTHER = Identity.from_seed(bytes([1]) * 32)
RUN = bytes([7]) * 32
HEAD = TreeHead(RUN, OWNER.peer_id, 3, bytes([9]) * 32, 1_700_000_000)


@given(
    size=st.integers(1, MAX_LEAVES),
    root=st.binary(min_size=32, max_size=32),
    timestamp_s=st.integers(0, MAX_TIMESTAMP_S),
)
def test_fields__return_the_same_head(size: int, root: bytes, timestamp_s: int) -> None:
    head = TreeHead(RUN, OWNER.peer_id, size, root, timestamp_s)
    payload = canonical.encode(head.to_fields())
    assert len(payload) <= TREE_HEAD.max_payload_bytes
    assert TreeHead.from_fields(canonical.decode(payload)) == head


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"extra": 1}, "tree-head-fields"),
        ({"size": True}, "tree-head-type"),
        ({"size": 3.0}, "tree-head-type"),
        ({"timestamp_s": "now"}, "tree-head-type"),
        ({"root": "00" * 32}, "tree-head-type"),
        ({"root": bytes(31)}, "tree-head-digest"),
        ({"run_id": bytes(33)}, "tree-head-digest"),
        ({"size": -1}, "tree-head-range"),
        ({"size": MAX_LEAVES + 1}, "tree-head-range"),
        ({"timestamp_s": -1}, "tree-head-range"),
        ({"timestamp_s": MAX_TIMESTAMP_S + 1}, "tree-head-range"),
        ({"size": 0}, "tree-head-empty"),
        ({"log_id": b"no peer id"}, "peer-id"),
    ],
)
def test_from_fields__refuses_by_name(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(MalformedError) as caught:
        TreeHead.from_fields({**HEAD.to_fields(), **changes})
    assert caught.value.rule == rule


@pytest.mark.parametrize("fields", [None, (), b"", {}, {"size": 3}])
def test_from_fields__refuses_what_is_no_head(fields: Any) -> None:
    with pytest.raises(MalformedError) as caught:
        TreeHead.from_fields(fields)
    assert caught.value.rule == "tree-head-fields"


def test_from_fields__takes_the_empty_log() -> None:
    head = TreeHead(RUN, OWNER.peer_id, 0, EMPTY_ROOT, 0)
    assert TreeHead.from_fields(head.to_fields()) == head


def test_open__returns_what_the_owner_signed() -> None:
    verified = open_tree_head(sign_tree_head(HEAD, OWNER), RUN)
    assert verified.payload == HEAD
    assert verified.signer == OWNER.peer_id


def test_open__takes_cosigners_beside_the_owner() -> None:
    together = sign_tree_head(HEAD, OWNER, [OTHER])
    joined = merge_signatures([sign_tree_head(HEAD, OWNER), seal(TREE_HEAD, HEAD.to_fields(), [OTHER])])
    assert together == joined
    assert set(open_tree_head(together, RUN).signers) == {OWNER.peer_id, OTHER.peer_id}


def test_open__refuses_a_head_signed_by_others_only() -> None:
    with pytest.raises(InvalidSignatureError) as caught:
        open_tree_head(seal(TREE_HEAD, HEAD.to_fields(), [OTHER]), RUN)
    assert caught.value.rule == "tree-head-owner"


def test_open__refuses_another_run() -> None:
    with pytest.raises(WrongRunError) as caught:
        open_tree_head(sign_tree_head(HEAD, OWNER), bytes(32))
    assert caught.value.rule == "tree-head-run"


def test_open__refuses_another_domain() -> None:
    with pytest.raises(MalformedError) as caught:
        open_tree_head(seal(SCORE, HEAD.to_fields(), [OWNER]), RUN)
    assert caught.value.rule == "envelope-domain"


@given(data=st.data())
def test_open__refuses_any_flipped_bit(data: st.DataObject) -> None:
    envelope = bytearray(sign_tree_head(HEAD, OWNER))
    envelope[data.draw(st.integers(0, len(envelope) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RemoteProtocolError):
        open_tree_head(bytes(envelope), RUN)


def test_sign__refuses_another_peers_log() -> None:
    with pytest.raises(LocalProtocolError):
        sign_tree_head(HEAD, OTHER)
