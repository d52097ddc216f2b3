from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.network import control
from iota_p2p.network.control import PeerInfo
from iota_p2p.network.delimited import MAX_MESSAGE_BYTES, MessageSplitter, encode_varint
from iota_p2p.network.multiaddr import encode_multiaddr
from iota_p2p_crypto.errors import LocalProtocolError, OversizedError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import Identity, peer_id_to_bytes

PEER_ID = Identity.from_seed(b"p" * 32).peer_id
RAW_ID = peer_id_to_bytes(PEER_ID)
READERS = (
    control.check_reply,
    control.read_identify_reply,
    control.read_peers_reply,
    control.read_provider,
    control.read_stream_info,
    control.read_gossip,
)


def field(number: int, value: bytes | int) -> bytes:
    """Encode one protobuf field by hand, so that the schema is checked against the wire and not against itself."""
    if isinstance(value, int):
        return encode_varint(number << 3) + encode_varint(value)
    return encode_varint(number << 3 | 2) + encode_varint(len(value)) + value


def split(request: bytes) -> bytes:
    splitter = MessageSplitter()
    splitter.feed(request)
    body = splitter.next_body()
    assert body is not None
    assert splitter.take_rest() == b""
    return body


@given(st.lists(st.binary(max_size=300)), st.binary(max_size=20))
def test_splitter__same_bodies_and_rest_byte_at_a_time(bodies: list[bytes], rest: bytes) -> None:
    """Feeding byte by byte gives the bodies that were framed, and what follows them is left."""
    data = b"".join(encode_varint(len(body)) + body for body in bodies)
    splitter, found = MessageSplitter(), []
    for byte in data:
        splitter.feed(bytes([byte]))
        body = splitter.next_body()
        found += [body] if body is not None else []
    splitter.feed(rest)
    assert found == bodies
    assert splitter.take_rest() == rest


@given(st.binary(max_size=200))
def test_splitter__splits_or_raises_on_any_bytes(data: bytes) -> None:
    splitter = MessageSplitter()
    splitter.feed(data)
    with suppress(RemoteProtocolError):
        while splitter.next_body() is not None:
            pass


def test_splitter__refuses_an_announced_length_over_the_limit() -> None:
    splitter = MessageSplitter()
    splitter.feed(encode_varint(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(OversizedError):
        splitter.next_body()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@given(data=st.binary(max_size=200))
def test_reader__reads_or_raises_on_any_bytes(reader: Callable[[bytes], object], data: bytes) -> None:
    with suppress(RemoteProtocolError, PeerUnavailableError):
        reader(data)


def test_open_stream_request__is_what_the_daemon_reads() -> None:
    body = split(control.open_stream_request(PEER_ID, "/echo/1", 5))
    assert body == field(1, 2) + field(3, field(1, RAW_ID) + field(2, b"/echo/1") + field(3, 5))


def test_identify_request__carries_its_type_although_it_is_zero() -> None:
    """The type is required in the daemon's schema: left out, the daemon would drop the connection."""
    assert split(control.identify_request()) == field(1, 0)


def test_handle_request__names_the_socket_and_is_not_balanced() -> None:
    body = split(control.handle_request("/echo/1", "/tmp/x"))  # noqa: S108 - nothing is opened
    address = bytes.fromhex("9003") + encode_varint(6) + b"/tmp/x"
    assert body == field(1, 3) + field(4, field(1, address) + field(2, b"/echo/1") + field(3, 0))


def test_provide_request__hashes_the_key_into_a_cid() -> None:
    body = split(control.provide_request(b"k" * 32, 7))
    assert bytes.fromhex("01551220") in body
    assert b"k" * 32 not in body


def test_peers_reply__leaves_out_what_is_not_of_our_kind() -> None:
    """A peer with an RSA key is skipped, and so is an address with a transport we do not speak."""
    address = encode_multiaddr("/ip4/127.0.0.1/tcp/4001")
    quic = bytes.fromhex("047f000001910202 31cc03".replace(" ", ""))
    ours = field(6, field(1, RAW_ID) + field(2, quic) + field(2, address))
    rsa = field(6, field(1, bytes.fromhex("1220") + bytes(32)) + field(2, address))
    peers = control.read_peers_reply(field(1, 0) + rsa + ours)
    assert peers == [PeerInfo(PEER_ID, ("/ip4/127.0.0.1/tcp/4001",))]


def test_error_reply__raises_what_the_caller_says_it_means() -> None:
    reply = field(1, 1) + field(2, field(1, b"no luck"))
    with pytest.raises(PeerUnavailableError, match="no luck"):
        control.check_reply(reply)
    with pytest.raises(LocalProtocolError, match="no luck"):
        control.check_reply(reply, LocalProtocolError)


def test_provider__is_read_until_the_end() -> None:
    assert control.read_provider(field(1, 1) + field(2, field(1, RAW_ID))) == (PEER_ID, False)
    assert control.read_provider(field(1, 2)) == (None, True)


def test_gossip__is_from_its_author() -> None:
    assert control.read_gossip(field(1, RAW_ID) + field(2, b"hi") + field(3, b"seqno")) == (PEER_ID, b"hi")
