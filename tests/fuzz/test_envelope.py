"""No envelope but the one that was sealed opens, and no input raises anything but a peer's fault."""

import contextlib
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import ABSENCE, TREE_HEAD, Domain
from iota_p2p_crypto.envelope import domain_of, merge_signatures, open_envelope, seal
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import Identity, PeerId, parse_peer_id, peer_id_from_bytes, peer_id_to_bytes
from iota_p2p_crypto.single_signature import take_single
from iota_p2p_protocols.message import Count, DigestField, PeerIdField, SignedMessage

ALICE, BOB = (Identity.from_seed(bytes([n]) * 32) for n in range(2))
GOOD = seal(TREE_HEAD, {"size": 300, "root": bytes(range(8))}, [ALICE, BOB])

ATOMS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=70) | st.text(max_size=70)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=5).map(tuple) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=20,
)
# Nearly an envelope, so that every check behind the first is reached.
SIGNATURES = st.fixed_dictionaries(
    {"keyid": VALUES | st.just(peer_id_to_bytes(ALICE.peer_id)), "sig": VALUES | st.just(bytes(64))}
)
ENVELOPES = st.fixed_dictionaries(
    {
        "payload": VALUES | VALUES.map(canonical.encode),
        "payloadType": VALUES | st.just(TREE_HEAD.payload_type),
        "signatures": VALUES | st.lists(SIGNATURES | VALUES, max_size=3),
    }
).map(canonical.encode)


SIZES = st.sampled_from([0, 1, 255, 256, 1000]).map(bytes) | st.binary(max_size=300)
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3), st.integers(0, 3)), max_size=3)


@given(SIZES, EDITS)
def test_taking_single_signatures_apart__is_what_decoding_gives(
    payload: bytes, edits: list[tuple[int, bytes, int]]
) -> None:
    """Of an envelope, and of bytes like one: what fits by its layout is canonical, and the same parts come out."""
    whole = seal(TREE_HEAD, payload, [ALICE])
    assert take_single(whole, TREE_HEAD) is not None
    for position, put, cut in edits:
        at = position % len(whole)
        whole = whole[:at] + put + whole[at + cut :]
    single = take_single(whole, TREE_HEAD)
    if single is not None:
        signature = {"keyid": single.keyid, "sig": single.signature}
        decoded = canonical.decode(whole)
        assert decoded == {
            "payload": single.payload,
            "payloadType": TREE_HEAD.payload_type,
            "signatures": (signature,),
        }
        assert len(single.payload) <= TREE_HEAD.max_payload_bytes


class Note(SignedMessage):
    domain: ClassVar[Domain] = ABSENCE
    max_lifetime_s: ClassVar[int] = 60

    about: PeerIdField
    evidence: tuple[DigestField, ...]
    counts: dict[str, Count]


FIELDS = st.fixed_dictionaries(
    {
        "run_id": VALUES | st.binary(min_size=32, max_size=32),
        "sequence": VALUES,
        "issued_s": VALUES | st.integers(0, 2**40),
        "expires_s": VALUES | st.integers(0, 2**40),
        "about": VALUES | st.just(ALICE.peer_id),
        "evidence": VALUES | st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple),
        "counts": VALUES | st.dictionaries(st.text(max_size=5), st.integers(0, 2**63 - 1), max_size=3),
    },
    optional={"other": VALUES},
)


def as_is(value: Any) -> Any:
    return value


def test_every_single_changed_byte__is_refused() -> None:
    for offset in range(len(GOOD)):
        for change in (0x01, 0x80, 0xFF):
            data = GOOD[:offset] + bytes([GOOD[offset] ^ change]) + GOOD[offset + 1 :]
            with pytest.raises(RemoteProtocolError):
                open_envelope(data, TREE_HEAD, as_is)


def test_every_truncation__is_refused() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(RemoteProtocolError):
            open_envelope(GOOD[:length], TREE_HEAD, as_is)


@given(st.binary(max_size=300) | ENVELOPES | VALUES.map(canonical.encode))
def test_any_bytes__open_or_are_the_peers_fault(data: bytes) -> None:
    for call in (lambda: open_envelope(data, TREE_HEAD, as_is), lambda: domain_of(data)):
        with contextlib.suppress(RemoteProtocolError):
            call()


@given(ENVELOPES, ENVELOPES)
def test_any_two_envelopes__merge_or_are_the_peers_fault(left: bytes, right: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        merge_signatures([left, right])


@given(VALUES)
def test_any_payload__comes_back_as_it_was_sealed(payload: Any) -> None:
    assert open_envelope(seal(TREE_HEAD, payload, [ALICE]), TREE_HEAD, as_is).payload == payload


@given(VALUES | FIELDS)
def test_any_value__is_a_message_or_the_peers_fault(value: Any) -> None:
    with contextlib.suppress(RemoteProtocolError):
        note = Note.from_fields(value)
        assert canonical.encode(note.to_fields()) == canonical.encode(value)


@given(st.text(max_size=80) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", max_size=60))
def test_any_text__is_a_peer_id_or_the_peers_fault(text: str) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert peer_id_from_bytes(peer_id_to_bytes(parse_peer_id(text))) == text


@given(st.binary(min_size=32, max_size=32))
def test_any_key__has_a_peer_id_that_comes_back(key: bytes) -> None:
    raw = bytes.fromhex("002408011220") + key
    assert peer_id_to_bytes(PeerId(peer_id_from_bytes(raw))) == raw
