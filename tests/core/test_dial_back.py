"""The rules of dial-back, and who a libp2p certificate proves to be there."""

import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from iota_p2p.network.dial_probe import _peer_id_in
from iota_p2p_crypto.errors import InvalidSignatureError, MalformedError, RemoteProtocolError
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.dial_back import MAX_PORTS, Allowance, DialBackAnswer, DialBackRequest, direct_ip
from iota_p2p_protocols.errors import RefusedError

IDENTITY = Identity.from_seed(b"\x01" * 32)
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_direct_ip__is_the_one_we_see() -> None:
    assert direct_ip(["/ip4/192.0.2.7/tcp/4001"]) == "192.0.2.7"
    assert direct_ip(["/ip6/2001:db8::7/tcp/4001"]) == "2001:db8::7"


def test_direct_ip__none_through_a_relay_or_without_an_address() -> None:
    relay = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWSrKnMZUcSxK8G7wmBbXdU8nFEfWGhLu6H8xjn8LmCSJb/p2p-circuit"
    assert direct_ip([relay]) is None
    assert direct_ip(["/memory/0", "/dns4/example.org/tcp/4001", ""]) is None
    assert direct_ip([]) is None
    assert direct_ip([relay, "/ip4/192.0.2.7/tcp/4001"]) == "192.0.2.7"


@pytest.mark.parametrize("ports", [(), (0,), (65536,), (-1,), ("80",), tuple(range(1, MAX_PORTS + 2)), (True,)])
def test_request__reject_ports_out_of_bounds(ports: tuple[object, ...]) -> None:
    with pytest.raises(MalformedError):
        DialBackRequest.from_fields({"ports": ports})


def test_request__reject_an_address_of_the_callers_choice() -> None:
    with pytest.raises(MalformedError):
        DialBackRequest.from_fields({"ports": (4001,), "ip": "192.0.2.1"})


def test_answer__reject_too_many_outcomes() -> None:
    with pytest.raises(MalformedError):
        DialBackAnswer.from_fields({"ip": "192.0.2.1", "reached": (True,) * (MAX_PORTS + 1)})


def test_allowance__refuses_a_peer_that_asks_too_often_until_the_next_window() -> None:
    allowance = Allowance(per_peer=2, per_ip=10, total=10, window_s=60)
    allowance.take("a", "192.0.2.1", 5.0)
    allowance.take("a", "192.0.2.2", 6.0)
    with pytest.raises(RefusedError, match="again in 58 s"):
        allowance.take("a", "192.0.2.3", 7.0)
    allowance.take("b", "192.0.2.1", 7.0)
    allowance.take("a", "192.0.2.1", 65.0)


def test_allowance__refuses_an_address_whose_peer_ids_are_made_up() -> None:
    allowance = Allowance(per_peer=1, per_ip=3, total=10)
    for number in range(3):
        allowance.take(f"peer {number}", "192.0.2.1", 0.0)
    with pytest.raises(RefusedError):
        allowance.take("peer 3", "192.0.2.1", 0.0)
    allowance.take("peer 3", "192.0.2.2", 0.0)


def test_allowance__bounds_the_total_and_its_own_memory() -> None:
    allowance = Allowance(total=5)
    for number in range(100):
        try:
            allowance.take(f"peer {number}", f"2001:db8::{number}", 0.0)
        except RefusedError:
            assert number >= 5
    assert len(allowance._granted) == 10
    assert allowance._num_granted == 5


def certificate(identity: Identity | None, *, signed: bytes | None = None, extension: bytes | None = None) -> bytes:
    """Make a certificate as libp2p does; `signed` and `extension` replace what should be in it."""
    key = generate_private_key(SECP256R1())
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, "1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + dt.timedelta(days=1))
    if identity:
        signature = identity.sign(b"libp2p-tls-handshake:" + info if signed is None else signed)
        value = bytes.fromhex("3068042408011220") + identity.public_key + b"\x04\x40" + signature
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, extension or value), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_certificate__proves_its_peer() -> None:
    assert _peer_id_in(certificate(IDENTITY)) == IDENTITY.peer_id


def test_certificate__reject_a_signature_over_another_key() -> None:
    """Somebody else's certificate cannot be passed off as one's own."""
    other = hashlib.sha256(b"another key").digest()
    with pytest.raises(InvalidSignatureError):
        _peer_id_in(certificate(IDENTITY, signed=b"libp2p-tls-handshake:" + other))


def test_certificate__reject_without_a_proper_extension() -> None:
    for bad in (certificate(None), certificate(IDENTITY, extension=b"\x30\x68"), b""):
        with pytest.raises(MalformedError):
            _peer_id_in(bad)


GOOD = certificate(IDENTITY)


# A serial number below 1, which the parser tolerates with a warning: its bytes follow 15 fixed ones.
@example(position=15, change=1)
@example(position=15, change=0x80)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_certificate__any_changed_byte_raises_nothing_unexpected(position: int, change: int) -> None:
    bad = bytearray(GOOD)
    bad[position] ^= change
    try:
        found = _peer_id_in(bytes(bad))
    except RemoteProtocolError:
        return
    assert found == IDENTITY.peer_id  # a byte that the handshake, not this function, vouches for
