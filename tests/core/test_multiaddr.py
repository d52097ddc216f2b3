from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.network.delimited import decode_varint, encode_varint
from iota_p2p.network.multiaddr import PeerAddress, decode_multiaddr, encode_multiaddr
from iota_p2p_crypto.errors import MalformedError, OversizedError, RemoteProtocolError
from iota_p2p_crypto.identity import Identity

PEER_ID = Identity.from_seed(b"p" * 32).peer_id
ADDRESSES = (
    "/ip4/127.0.0.1/tcp/4001",
    "/ip6/::1/tcp/0",
    "/dns4/example.org/tcp/443/tls/sni/example.org/ws",
    f"/ip4/10.0.0.1/tcp/1/p2p/{PEER_ID}/p2p-circuit",
    "/unix/run/some/socket",
)


@pytest.mark.parametrize("text", ADDRESSES)
def test_multiaddr__survives_the_round_trip(text: str) -> None:
    assert decode_multiaddr(encode_multiaddr(text)) == text


def test_multiaddr__is_the_bytes_of_the_specification() -> None:
    """From the multiaddr specification: /ip4/127.0.0.1/tcp/80 with codes 4 and 6."""
    assert encode_multiaddr("/ip4/127.0.0.1/tcp/80") == bytes.fromhex("047f000001060050")


@given(st.binary(max_size=100))
def test_multiaddr__decodes_or_raises_on_any_bytes(data: bytes) -> None:
    """What decodes can be written again, and means the same."""
    try:
        text = decode_multiaddr(data)
    except RemoteProtocolError:
        return
    if text:
        assert decode_multiaddr(encode_multiaddr(text)) == text


@given(st.text(max_size=60))
def test_multiaddr__encodes_or_raises_on_any_text(text: str) -> None:
    with suppress(MalformedError):
        encode_multiaddr("/" + text)


@pytest.mark.parametrize(
    "text",
    ["", "/", "ip4/1.2.3.4", "/ip4", "/ip4/1.2.3", "/ip4/1.2.3.4/tcp/65536", "/tcp/+1", "/tcp/-1", "/dns/", "/http/x"],
)
def test_multiaddr__is_refused_when_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        encode_multiaddr(text)


def test_multiaddr__is_refused_when_oversized() -> None:
    with pytest.raises(OversizedError):
        decode_multiaddr(encode_multiaddr("/tcp/1") * 1000)


def test_peer_address__splits_at_the_last_peer() -> None:
    relayed = f"/ip4/10.0.0.1/tcp/1/p2p/{PEER_ID}/p2p-circuit/p2p/{PEER_ID}"
    address = PeerAddress.parse(relayed)
    assert address == PeerAddress(PEER_ID, f"/ip4/10.0.0.1/tcp/1/p2p/{PEER_ID}/p2p-circuit")
    assert str(address) == relayed


@pytest.mark.parametrize("text", ["/ip4/1.2.3.4/tcp/1", f"/p2p/{PEER_ID}", "/ip4/1.2.3.4/tcp/1/p2p/QmYwAPJzv5CZsnA"])
def test_peer_address__is_refused_without_transport_or_ed25519_peer(text: str) -> None:
    with pytest.raises(MalformedError):
        PeerAddress.parse(text)


@given(st.integers(0, 2**27))
def test_varint__survives_the_round_trip(number: int) -> None:
    data = encode_varint(number)
    assert decode_varint(data, 0, 4) == (number, len(data))
    assert decode_varint(data[:-1], 0, 4) is None
