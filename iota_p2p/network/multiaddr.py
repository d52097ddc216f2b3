"""Multiaddresses: `/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...` as text, and the bytes libp2p sends for them.

Binary form: for each part an unsigned-varint protocol code, then its value, of fixed size or behind a varint
length (multiformats/multiaddr, table protocols.csv). Only the protocols a TCP host meets are known here;
an address with any other part (QUIC, WebRTC) raises `MalformedError` and its reader skips it.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import base58

from iota_p2p.network.delimited import decode_varint, encode_varint
from iota_p2p_crypto.errors import MalformedError, OversizedError
from iota_p2p_crypto.identity import PeerId, parse_peer_id

# A relayed DNS address is some 350 bytes; a DNS name at most 255. Longer ones are an attack on our memory.
MAX_MULTIADDR_BYTES = 1024
_MAX_VARINT_BYTES = 3  # codes and lengths here stay under 2**21


class _Value(Enum):
    """How the value behind a protocol code is written."""

    NONE = 0
    IP4 = 4
    IP6 = 16
    PORT = 2
    NAME = -1  # varint length, then UTF-8
    MULTIHASH = -2  # varint length, then a peer id, base58btc in text
    PATH = -3  # varint length, then UTF-8 with its slashes; always the last part


_PROTOCOLS: dict[str, tuple[int, _Value]] = {
    "ip4": (4, _Value.IP4),
    "tcp": (6, _Value.PORT),
    "ip6": (41, _Value.IP6),
    "ip6zone": (42, _Value.NAME),
    "dns": (53, _Value.NAME),
    "dns4": (54, _Value.NAME),
    "dns6": (55, _Value.NAME),
    "dnsaddr": (56, _Value.NAME),
    "p2p-circuit": (290, _Value.NONE),
    "unix": (400, _Value.PATH),
    "p2p": (421, _Value.MULTIHASH),
    "tls": (448, _Value.NONE),
    "sni": (449, _Value.NAME),
    "ws": (477, _Value.NONE),
    "wss": (478, _Value.NONE),
}
_NAMES = {code: (name, value) for name, (code, value) in _PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A full address: where to dial, and whom to expect there.

    Attributes:
        peer_id: the last `/p2p/` part.
        transport: everything before it, such as `/ip4/127.0.0.1/tcp/4001`.
    """

    peer_id: PeerId
    transport: str

    @classmethod
    def parse(cls, text: str) -> "PeerAddress":
        """Split a full multiaddress; raises MalformedError unless it ends in an Ed25519 `/p2p/<peer id>`."""
        transport, separator, peer_id = text.rpartition("/p2p/")
        if not separator or not transport:
            raise MalformedError("multiaddr", f"expected an address ending in /p2p/<peer id>, got {text!r:.200}")
        encode_multiaddr(transport)
        return cls(parse_peer_id(peer_id), transport)

    def __str__(self) -> str:
        """Write the full multiaddress."""
        return f"{self.transport}/p2p/{self.peer_id}"


def encode_multiaddr(text: str) -> bytes:
    """Return the binary form of a multiaddress; raises MalformedError on anything we cannot write."""
    if not text.startswith("/") or len(text) > MAX_MULTIADDR_BYTES:
        raise MalformedError("multiaddr", f"expected /<protocol>/<value>..., got {text!r:.200}")
    parts = text.split("/")[1:]
    out = bytearray()
    position = 0
    while position < len(parts):
        name = parts[position]
        if name not in _PROTOCOLS:
            raise MalformedError("multiaddr", f"expected a known protocol, got {name!r:.40} in {text!r:.200}")
        code, kind = _PROTOCOLS[name]
        out += encode_varint(code)
        position += 1
        if kind is _Value.NONE:
            continue
        value = "/" + "/".join(parts[position:]) if kind is _Value.PATH else "".join(parts[position : position + 1])
        position = len(parts) if kind is _Value.PATH else position + 1
        out += _encode_value(kind, value, text)
    return bytes(out)


def _encode_value(kind: _Value, value: str, text: str) -> bytes:
    try:
        if kind is _Value.IP4:
            return ipaddress.IPv4Address(value).packed
        if kind is _Value.IP6:
            return ipaddress.IPv6Address(value).packed
        if kind is _Value.PORT:
            return int(value if value.isdecimal() else "not a port").to_bytes(2, "big")
        raw = base58.b58decode(value) if kind is _Value.MULTIHASH else value.encode()
    except (ValueError, OverflowError) as error:
        raise MalformedError(
            "multiaddr", f"expected a valid {kind.name}, got {value!r:.60} in {text!r:.200}"
        ) from error
    if not raw:
        raise MalformedError("multiaddr", f"expected a valid {kind.name}, got nothing in {text!r:.200}")
    return encode_varint(len(raw)) + raw


def decode_multiaddr(data: bytes) -> str:
    """Return the text of a binary multiaddress.

    Raises:
        OversizedError: beyond MAX_MULTIADDR_BYTES.
        MalformedError: if the bytes are cut short or name a protocol we do not speak.
    """
    if len(data) > MAX_MULTIADDR_BYTES:
        raise OversizedError("multiaddr", f"expected at most {MAX_MULTIADDR_BYTES} bytes, got {len(data)}")
    return "".join(_parts(data))


def _parts(data: bytes) -> Iterator[str]:
    position = 0
    while position < len(data):
        code, position = _whole_varint(data, position)
        if code not in _NAMES:
            raise MalformedError("multiaddr", f"expected a known protocol, got code {code}")
        name, kind = _NAMES[code]
        length = kind.value
        if length < 0:
            length, position = _whole_varint(data, position)
        raw, position = data[position : position + length], position + length
        if len(raw) != length or (kind.value < 0 and not length):
            raise MalformedError("multiaddr", f"expected {length} bytes of {name}, got {len(raw)}")
        yield _decode_part(name, kind, raw)


def _whole_varint(data: bytes, position: int) -> tuple[int, int]:
    found = decode_varint(data, position, _MAX_VARINT_BYTES)
    if found is None:
        raise MalformedError("multiaddr", f"expected a varint at byte {position}, got the end")
    return found


def _decode_part(name: str, kind: _Value, raw: bytes) -> str:
    if kind is _Value.NONE:
        return f"/{name}"
    if kind is _Value.PORT:
        return f"/{name}/{int.from_bytes(raw, 'big')}"
    if kind is _Value.MULTIHASH:
        return f"/{name}/{base58.b58encode(raw).decode('ascii')}"
    if kind in {_Value.IP4, _Value.IP6}:
        return f"/{name}/{ipaddress.ip_address(raw)}"
    try:
        value = raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("multiaddr", f"expected UTF-8 in {name}, got {raw[:40].hex()}") from error
    if kind is _Value.PATH and value.startswith("/"):
        return f"/{name}{value}"
    if "/" in value:
        raise MalformedError("multiaddr", f"expected a name without slashes in {name}, got {value!r:.60}")
    return f"/{name}/{value}"
