"""The go-libp2p daemon's control protocol: bytes in, values out. The only module that knows its protobuf.

Every message is an unsigned-varint length and a protobuf message of package `p2pclient.p2pd.pb` (proto2), one
request and its replies per connection. After the OK to STREAM_OPEN, and after the StreamInfo of an inbound
connection, the same connection carries the stream's own bytes. FIND_PROVIDERS answers OK, then BEGIN, VALUE...
and END; SUBSCRIBE answers OK, then one PSMessage after the other.

The schema below is written down field by field instead of loading the generated module that the daemon's own
Python client carries: that one refuses to load under some protobuf versions, and is absent where the daemon
comes from elsewhere. Enums are integers on the wire and are declared so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from iota_p2p.network.delimited import delimit
from iota_p2p.network.multiaddr import decode_multiaddr, encode_multiaddr
from iota_p2p_crypto.errors import IotaError, MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId, peer_id_from_bytes, peer_id_to_bytes

_CIDV1_RAW_SHA256 = bytes.fromhex("01551220")  # CID version 1, codec raw, multihash sha2-256 of 32 bytes


class _Request(IntEnum):
    IDENTIFY = 0
    CONNECT = 1
    STREAM_OPEN = 2
    STREAM_HANDLER = 3
    DHT = 4
    LIST_PEERS = 5
    DISCONNECT = 7
    PUBSUB = 8
    PERSISTENT_CONN_UPGRADE = 9


_OK = 0
_DHT_FIND_PROVIDERS, _DHT_PROVIDE = 2, 8
_DHT_VALUE, _DHT_END = 1, 2
_PUBSUB_PUBLISH, _PUBSUB_SUBSCRIBE = 2, 3

_Kind = descriptor_pb2.FieldDescriptorProto
_INT, _BOOL, _TEXT, _BYTES = _Kind.TYPE_INT64, _Kind.TYPE_BOOL, _Kind.TYPE_STRING, _Kind.TYPE_BYTES
_PACKAGE = "p2pclient.p2pd.pb"
# message -> field -> (number, type or message name); a tuple of one around the type means repeated.
_SCHEMA: Final[Mapping[str, Mapping[str, tuple[int, Any]]]] = {
    "Request": {
        "type": (1, _INT),
        "connect": (2, "ConnectRequest"),
        "stream_open": (3, "StreamOpenRequest"),
        "stream_handler": (4, "StreamHandlerRequest"),
        "dht": (5, "DHTRequest"),
        "disconnect": (7, "DisconnectRequest"),
        "pubsub": (8, "PSRequest"),
    },
    "Response": {
        "type": (1, _INT),
        "error": (2, "ErrorResponse"),
        "stream_info": (3, "StreamInfo"),
        "identify": (4, "IdentifyResponse"),
        "dht": (5, "DHTResponse"),
        "peers": (6, ("PeerInfo",)),
    },
    "IdentifyResponse": {"id": (1, _BYTES), "addrs": (2, (_BYTES,))},
    "ConnectRequest": {"peer": (1, _BYTES), "addrs": (2, (_BYTES,)), "timeout": (3, _INT)},
    "StreamOpenRequest": {"peer": (1, _BYTES), "proto": (2, (_TEXT,)), "timeout": (3, _INT)},
    "StreamHandlerRequest": {"addr": (1, _BYTES), "proto": (2, (_TEXT,)), "balanced": (3, _BOOL)},
    "ErrorResponse": {"msg": (1, _TEXT)},
    "StreamInfo": {"peer": (1, _BYTES), "addr": (2, _BYTES), "proto": (3, _TEXT)},
    "DHTRequest": {"type": (1, _INT), "cid": (3, _BYTES), "count": (6, _INT), "timeout": (7, _INT)},
    "DHTResponse": {"type": (1, _INT), "peer": (2, "PeerInfo")},
    "PeerInfo": {"id": (1, _BYTES), "addrs": (2, (_BYTES,))},
    "DisconnectRequest": {"peer": (1, _BYTES)},
    "PSRequest": {"type": (1, _INT), "topic": (2, _TEXT), "data": (3, _BYTES)},
    "PSMessage": {"from": (1, _BYTES), "data": (2, _BYTES)},
}


def _message_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="p2pd_control.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _SCHEMA.items():
        declared = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            label = _Kind.LABEL_REPEATED if isinstance(kind, tuple) else _Kind.LABEL_OPTIONAL
            kind = kind[0] if isinstance(kind, tuple) else kind  # noqa: PLW2901 - the same kind, unwrapped
            field = declared.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = _Kind.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()  # not the default pool: the daemon's own client may be loaded there
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _SCHEMA}


_MESSAGES: Final = _message_classes()


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer and the transport addresses the daemon names with it (those it could not put in words left out)."""

    peer_id: PeerId
    addresses: Sequence[str]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Who opened a stream, and for which protocol."""

    peer_id: PeerId
    protocol: str


def _request(kind: _Request, **fields: Any) -> bytes:
    return delimit(_MESSAGES["Request"](type=int(kind), **fields).SerializeToString())


def identify_request() -> bytes:
    """Ask for the daemon's own peer id and addresses."""
    return _request(_Request.IDENTIFY)


def hold_request() -> bytes:
    """Turn the connection into a persistent one: with `-idleTimeout` the daemon lives only while one is open."""
    return _request(_Request.PERSISTENT_CONN_UPGRADE)


def connect_request(peer: PeerInfo, timeout_s: int) -> bytes:
    """Ask for a connection; without addresses the daemon looks the peer up in the DHT."""
    body = {
        "peer": peer_id_to_bytes(peer.peer_id),
        "addrs": [encode_multiaddr(address) for address in peer.addresses],
        "timeout": timeout_s,
    }
    return _request(_Request.CONNECT, connect=body)


def disconnect_request(peer_id: PeerId) -> bytes:
    """Ask to close every connection to a peer."""
    return _request(_Request.DISCONNECT, disconnect={"peer": peer_id_to_bytes(peer_id)})


def list_peers_request() -> bytes:
    """Ask for the open connections."""
    return _request(_Request.LIST_PEERS)


def open_stream_request(peer_id: PeerId, protocol: str, timeout_s: int) -> bytes:
    """Ask for a stream; after the reply the connection is that stream."""
    body = {"peer": peer_id_to_bytes(peer_id), "proto": [protocol], "timeout": timeout_s}
    return _request(_Request.STREAM_OPEN, stream_open=body)


def handle_request(protocol: str, listener_path: str) -> bytes:
    """Ask the daemon to dial our unix socket for each inbound stream of a protocol."""
    body = {"addr": encode_multiaddr(f"/unix{listener_path}"), "proto": [protocol], "balanced": False}
    return _request(_Request.STREAM_HANDLER, stream_handler=body)


def provide_request(key: bytes, timeout_s: int) -> bytes:
    """Ask to announce in the DHT that we provide a key."""
    return _request(_Request.DHT, dht={"type": _DHT_PROVIDE, "cid": _cid(key), "timeout": timeout_s})


def find_providers_request(key: bytes, limit: int, timeout_s: int) -> bytes:
    """Ask the DHT for up to `limit` providers of a key."""
    body = {"type": _DHT_FIND_PROVIDERS, "cid": _cid(key), "count": limit, "timeout": timeout_s}
    return _request(_Request.DHT, dht=body)


def publish_request(topic: str, data: bytes) -> bytes:
    """Ask to publish to a gossip topic."""
    return _request(_Request.PUBSUB, pubsub={"type": _PUBSUB_PUBLISH, "topic": topic, "data": data})


def subscribe_request(topic: str) -> bytes:
    """Ask for a topic's messages; they follow the reply for as long as the connection is open."""
    return _request(_Request.PUBSUB, pubsub={"type": _PUBSUB_SUBSCRIBE, "topic": topic})


def _cid(key: bytes) -> bytes:
    return _CIDV1_RAW_SHA256 + sha256(key).digest()


def _parse(name: str, body: bytes) -> Any:
    try:
        return _MESSAGES[name].FromString(body)
    except DecodeError as error:
        raise MalformedError("control-message", f"expected a {name}, got {body[:40].hex()}") from error


def check_reply(body: bytes, refused: type[IotaError] = PeerUnavailableError) -> Any:
    """Return a reply that says OK; raises `refused` with the daemon's words if it says ERROR."""
    reply = _parse("Response", body)
    if not reply.HasField("type"):
        raise MalformedError("control-message", f"expected a Response with a type, got {body[:40].hex()}")
    if reply.type != _OK:
        words = " ".join(reply.error.msg.split())  # a failed dial has a line for each address
        raise refused(f"expected the daemon to comply, got: {words or 'an error without words'}")
    return reply


def _peer_info(message: Any) -> PeerInfo:
    addresses = []
    for raw in message.addrs:
        try:
            addresses.append(decode_multiaddr(raw))
        except MalformedError:
            continue  # a transport we do not speak
    return PeerInfo(peer_id_from_bytes(message.id), tuple(addresses))


def read_identify_reply(body: bytes) -> PeerInfo:
    """Return the daemon's own peer id and transport addresses."""
    return _peer_info(check_reply(body).identify)


def read_peers_reply(body: bytes) -> Sequence[PeerInfo]:
    """Return the open connections; peers whose key is not Ed25519 are not of our kind and left out."""
    found = []
    for message in check_reply(body).peers:
        try:
            found.append(_peer_info(message))
        except MalformedError:
            continue
    return found


def read_provider(body: bytes) -> tuple[PeerId | None, bool]:
    """Return (the provider if this message names one, whether it is the last message).

    These messages follow the reply to FIND_PROVIDERS, which itself is read with `check_reply`.
    """
    reply = _parse("DHTResponse", body)
    if reply.type != _DHT_VALUE:
        return None, reply.type == _DHT_END
    try:
        return peer_id_from_bytes(reply.peer.id), False
    except MalformedError:
        return None, False  # a provider with another kind of key is not of our kind


def read_stream_info(body: bytes) -> StreamInfo:
    """Return what the daemon says first about an inbound stream."""
    info = _parse("StreamInfo", body)
    return StreamInfo(peer_id_from_bytes(info.peer), info.proto)


def read_gossip(body: bytes) -> tuple[PeerId, bytes]:
    """Return (author, data); the daemon has checked the author's signature (`-pubsubSignStrict`)."""
    message = _parse("PSMessage", body)
    return peer_id_from_bytes(getattr(message, "from")), message.data
