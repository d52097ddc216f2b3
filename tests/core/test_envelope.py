"""What envelopes promise beyond their vectors: the oracle, the type that proves a check, merging, the spec's table."""

import ast
import copy
import dataclasses
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from securesystemslib.dsse import Envelope as DsseEnvelope
from securesystemslib.signer._key import SSlibKey
from securesystemslib.signer._signature import Signature

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import ABSENCE, DOMAIN_BY_PAYLOAD_TYPE, DOMAINS, SCORE, TREE_HEAD, Domain
from iota_p2p_crypto.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_OVERHEAD_BYTES,
    Verified,
    domain_of,
    merge_signatures,
    open_envelope,
    pre_authentication_encoding,
    seal,
    sign,
)
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, OversizedError
from iota_p2p_crypto.identity import Identity, peer_id_to_bytes

REPOSITORY = Path(__file__).parents[2]
ALICE, BOB, CAROL = (Identity.from_seed(bytes([n]) * 32) for n in range(3))
FIELDS = {"text": "héllo", "nonce": bytes(8)}


def as_is(value: Any) -> Any:
    return value


def verified_note() -> Verified[Any]:
    return open_envelope(seal(ABSENCE, FIELDS, [ALICE]), ABSENCE, as_is)


@pytest.mark.parametrize("payload_type", ["", "application/x", "http://example.com/héllo wörld"])
@pytest.mark.parametrize("payload", [b"", b"hello world", b"DSSEv1 0  0 ", bytes(300)], ids=len)
def test_pae__is_that_of_securesystemslib(payload_type: str, payload: bytes) -> None:
    assert pre_authentication_encoding(payload_type, payload) == DsseEnvelope(payload, payload_type, {}).pae()


def test_pae__is_the_dsse_specification_s_own_example() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == expected


def dsse_key(signer: Identity) -> SSlibKey:
    return SSlibKey(signer.peer_id, "ed25519", "ed25519", {"public": signer.public_key.hex()})


def test_our_envelopes__verify_under_securesystemslib() -> None:
    verified = open_envelope(seal(TREE_HEAD, FIELDS, [ALICE, BOB]), TREE_HEAD, as_is)
    entries = canonical.decode(verified.envelope_bytes)["signatures"]
    signatures = {
        str(peer_id): Signature(peer_id, entry["sig"].hex())
        for peer_id, entry in zip(verified.signers, entries, strict=True)
    }
    envelope = DsseEnvelope(verified.payload_bytes, TREE_HEAD.payload_type, signatures)
    assert set(envelope.verify([dsse_key(ALICE), dsse_key(BOB)], 2)) == {ALICE.peer_id, BOB.peer_id}


def test_dsse_signatures_made_elsewhere__open() -> None:
    payload = canonical.encode(FIELDS)
    pae = DsseEnvelope(payload, ABSENCE.payload_type, {}).pae()
    entry = {"keyid": peer_id_to_bytes(ALICE.peer_id), "sig": SigningKey(ALICE.seed).sign(pae).signature}
    data = canonical.encode({"payload": payload, "payloadType": ABSENCE.payload_type, "signatures": [entry]})
    assert data == seal(ABSENCE, FIELDS, [ALICE])
    assert open_envelope(data, ABSENCE, as_is).payload == FIELDS


FORGERIES: dict[str, Callable[[Verified[Any]], object]] = {
    "constructor": lambda v: Verified(v.payload, v.signers, v.payload_bytes, v.envelope_bytes),
    "constructor without arguments": lambda _: Verified(),
    "dataclasses.replace": lambda v: dataclasses.replace(v, payload="forged"),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_verified__cannot_be_made_any_other_way(forge: Callable[[Verified[Any]], object]) -> None:
    with pytest.raises(LocalProtocolError):
        forge(verified_note())


def test_sign__returns_what_opening_gives() -> None:
    assert sign(ABSENCE, FIELDS, FIELDS, ALICE) == verified_note()


def test_verified__cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        verified_note().payload = "forged"  # type: ignore[misc]  # that it may not is what is tested


def private_crypto_names(tree: ast.Module) -> Iterator[str]:
    """Yield the private names of iota_p2p_crypto that a module imports or reaches into."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "iota_p2p_crypto":
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
            modules |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        into_crypto = isinstance(node.value, ast.Name) and node.value.id in modules
        if node.attr == "__new__" or (into_crypto and node.attr.startswith("_")):
            yield node.attr


OUTSIDE_CRYPTO = sorted(
    path for folder in ("protocols", "iota_p2p", "testnet", "bench") for path in (REPOSITORY / folder).rglob("*.py")
)


def test_code_outside_crypto__uses_none_of_its_private_names() -> None:
    found = {
        str(path.relative_to(REPOSITORY)): names
        for path in OUTSIDE_CRYPTO
        if (names := list(private_crypto_names(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert OUTSIDE_CRYPTO
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "from iota_p2p_crypto.envelope import _verified",
        "from iota_p2p_crypto import envelope\nenvelope._verified(1, 2, 3)",
        "from iota_p2p_crypto.envelope import Verified\nobject.__new__(Verified)",
    ],
)
def test_the_search_for_private_names__finds_them(source: str) -> None:
    assert list(private_crypto_names(ast.parse(source)))


def test_seal__puts_the_signers_in_order_whatever_the_argument_s() -> None:
    assert seal(TREE_HEAD, FIELDS, [ALICE, BOB, CAROL]) == seal(TREE_HEAD, FIELDS, [CAROL, BOB, ALICE])


@pytest.mark.parametrize(
    ("domain", "payload", "signers"),
    [
        (ABSENCE, FIELDS, []),
        (ABSENCE, FIELDS, [ALICE, BOB]),
        (TREE_HEAD, FIELDS, [ALICE, ALICE]),
        (ABSENCE, bytes(ABSENCE.max_payload_bytes), [ALICE]),
        (ABSENCE, 1.5, [ALICE]),
    ],
    ids=["nobody", "too many", "one twice", "too large", "float"],
)
def test_seal__is_our_own_fault_beyond_the_domain(domain: Domain, payload: Any, signers: list[Identity]) -> None:
    with pytest.raises(LocalProtocolError):
        seal(domain, payload, signers)


def test_largest_envelope__fits_its_bound() -> None:
    payload = bytes(TREE_HEAD.max_payload_bytes - 3)
    signers = [Identity.from_seed(n.to_bytes(32, "big")) for n in range(TREE_HEAD.max_signatures)]
    data = seal(TREE_HEAD, payload, signers)
    assert len(data) - TREE_HEAD.max_payload_bytes <= MAX_OVERHEAD_BYTES
    assert len(data) <= MAX_ENVELOPE_BYTES
    assert len(open_envelope(data, TREE_HEAD, as_is).signers) == TREE_HEAD.max_signatures


def test_signer__is_our_own_fault_to_ask_of_several() -> None:
    with pytest.raises(LocalProtocolError):
        _ = open_envelope(seal(TREE_HEAD, FIELDS, [ALICE, BOB]), TREE_HEAD, as_is).signer


def test_domain_of__names_the_domain_without_checking_a_signature() -> None:
    data = seal(ABSENCE, FIELDS, [ALICE])
    assert domain_of(data[:-1] + bytes([data[-1] ^ 1])) is ABSENCE


def test_merge__is_what_all_signers_would_have_sealed() -> None:
    alone = [seal(TREE_HEAD, FIELDS, [signer]) for signer in (BOB, ALICE)]
    together = seal(TREE_HEAD, FIELDS, [ALICE, BOB, CAROL])
    assert merge_signatures([*alone, seal(TREE_HEAD, FIELDS, [CAROL, ALICE])]) == together


def test_merge__refuses_another_payload() -> None:
    with pytest.raises(MalformedError) as caught:
        merge_signatures([seal(TREE_HEAD, FIELDS, [ALICE]), seal(TREE_HEAD, {}, [BOB])])
    assert caught.value.rule == "envelope-merge"


def test_merge__is_the_peers_fault_with_too_many_signers() -> None:
    with pytest.raises(OversizedError) as caught:
        merge_signatures([seal(SCORE, FIELDS, [ALICE]), seal(SCORE, FIELDS, [BOB])])
    assert caught.value.rule == "envelope-signatures"


def test_domains__have_distinct_well_formed_types_and_room_for_their_signatures() -> None:
    assert len(DOMAIN_BY_PAYLOAD_TYPE) == len(DOMAINS)
    for domain in DOMAINS:
        assert re.fullmatch(r"application/vnd\.iota-p2p\.[a-z]+(-[a-z]+)*\+msgpack;v=[1-9][0-9]*", domain.payload_type)
        # Two keys, 38 and 64 bytes and their headers; then the envelope's own keys, type and headers.
        assert domain.max_signatures * 117 + 128 + len(domain.payload_type) <= MAX_OVERHEAD_BYTES


def test_spec__lists_the_domains_as_they_are() -> None:
    spec = (REPOSITORY / "protocols/spec/envelope.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| `([^`]+)` \| ([\d,]+) \| (\d+) \|", spec, flags=re.MULTILINE)
    listed = [(name, int(v), kind, int(size.replace(",", "")), int(count)) for name, v, kind, size, count in rows]
    assert listed == [(d.name, d.version, d.payload_type, d.max_payload_bytes, d.max_signatures) for d in DOMAINS]
