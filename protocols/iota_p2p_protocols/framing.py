"""Frames: what requests and responses are on a stream (spec: protocols/spec/framing.md).

    frame  = header length (4 bytes, big-endian) || header || payload
    header = canonical msgpack of {"fields": map, "kind": kind, "payload_bytes": length of the payload}

The payload follows raw, so that a tensor is never copied into msgpack. Limits: a protocol's own (`ids`). Whoever
reads from a socket asks for `wanted` bytes and feeds what comes: every byte then goes straight into the one
buffer of its payload, and none of the next frame is read too early.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from iota_p2p_crypto import canonical
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, OversizedError

Fields = dict[str, Any]
Payload = bytes | bytearray | memoryview

_LENGTH_BYTES = 4
# What a header holds besides its fields: three keys, a kind, a length, the map around them. 55 at most.
_FRAME_FIELDS_BYTES = 64
_HEADER_KEYS = {"fields", "kind", "payload_bytes"}


class Kind(Enum):
    """What a frame is."""

    REQUEST = "request"
    OK = "ok"  # the answer
    REFUSED = "refused"  # fields: reason and message; the request was understood and declined, or broke a rule
    FAILED = "failed"  # fields: message; somebody further on could not be reached


_KINDS = {kind.value for kind in Kind}


@dataclass(frozen=True, slots=True)
class Head:
    """A frame without its payload."""

    kind: Kind
    fields: Fields
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame."""

    kind: Kind
    fields: Fields
    payload: Payload


def encode_head(head: Head, *, max_header_bytes: int, max_payload_bytes: int) -> bytes:
    """Return the bytes that go before a payload; raises LocalProtocolError if they exceed the protocol's limits."""
    fields = {"fields": head.fields, "kind": head.kind.value, "payload_bytes": head.payload_bytes}
    header = canonical.encode(fields)
    if len(header) > max_header_bytes + _FRAME_FIELDS_BYTES:
        raise LocalProtocolError(f"expected a header of at most {max_header_bytes} bytes, got {len(header)}")
    if head.payload_bytes > max_payload_bytes:
        raise LocalProtocolError(f"expected at most {max_payload_bytes} bytes of payload, got {head.payload_bytes}")
    return len(header).to_bytes(_LENGTH_BYTES, "big") + header


class FrameDecoder:
    """Turns bytes into frames, however they are cut.

    Memory: at most the header limit, and one payload once its first byte has come. After an error the decoder is
    of no further use.
    """

    def __init__(self, *, max_header_bytes: int, max_payload_bytes: int) -> None:
        self._max_header_bytes = max_header_bytes + _FRAME_FIELDS_BYTES
        self._max_payload_bytes = max_payload_bytes
        self._header = bytearray()  # the length, then the header
        self._header_end = _LENGTH_BYTES
        self._payload: bytearray | None = None
        self._received_bytes = 0  # of the payload
        self._skipping = False
        self.head: Head | None = None  # of the frame under way, as soon as it is known

    @property
    def wanted(self) -> int:
        """How many more bytes are known to belong to the frame under way; at least 1 but between two frames."""
        if self.head is None:
            return self._header_end - len(self._header)
        return self.head.payload_bytes - self._received_bytes

    @property
    def idle(self) -> bool:
        """True if no byte of a next frame has come."""
        return not self._header

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take bytes; return the frames that they complete.

        Raises:
            OversizedError: if a header or payload is larger than its limit.
            MalformedError: if a header is not what it should be.
        """
        frames = []
        rest = memoryview(data)
        while rest:
            part, rest = rest[: self.wanted], rest[self.wanted :]
            if self.head is None:
                self._header += part
                self._read_header()
            else:
                self._keep(part, self.head.payload_bytes)
            if self.head is not None and not self.wanted:
                frames.append(self._finish(self.head))
        return frames

    def skip_payload(self) -> None:
        """Throw away the payload of the frame under way; the frame will have none."""
        self._skipping = True

    def _keep(self, part: memoryview, payload_bytes: int) -> None:
        if not self._skipping:
            if self._payload is None:
                self._payload = bytearray(payload_bytes)
            self._payload[self._received_bytes : self._received_bytes + len(part)] = part
        self._received_bytes += len(part)

    def _read_header(self) -> None:
        if len(self._header) < self._header_end:
            return
        if self._header_end == _LENGTH_BYTES:
            size = int.from_bytes(self._header, "big")
            if size > self._max_header_bytes:
                raise OversizedError(
                    "frame-header-size", f"expected a header of at most {self._max_header_bytes} bytes, got {size}"
                )
            self._header_end += size
            if size:
                return
        self.head = _parse_header(bytes(self._header[_LENGTH_BYTES:]), self._max_header_bytes)
        if self.head.payload_bytes > self._max_payload_bytes:
            raise OversizedError(
                "frame-payload-size",
                f"expected at most {self._max_payload_bytes} bytes of payload, got {self.head.payload_bytes}",
            )

    def _finish(self, head: Head) -> Frame:
        frame = Frame(head.kind, head.fields, b"" if self._payload is None else self._payload)
        self._header.clear()
        self._header_end = _LENGTH_BYTES
        self._payload = None
        self._received_bytes = 0
        self._skipping = False
        self.head = None
        return frame


def _parse_header(data: bytes, max_bytes: int) -> Head:
    header = canonical.decode(data, max_bytes=max_bytes)
    if not isinstance(header, dict) or set(header) != _HEADER_KEYS:
        raise MalformedError("frame-header", f"expected a map of {sorted(_HEADER_KEYS)}, got {header!r:.80}")
    fields, kind, payload_bytes = header["fields"], header["kind"], header["payload_bytes"]
    if type(fields) is not dict or type(payload_bytes) is not int or payload_bytes < 0:
        raise MalformedError("frame-header", f"expected fields and a payload length, got {header!r:.80}")
    if type(kind) is not str or kind not in _KINDS:
        raise MalformedError("frame-kind", f"expected a known kind of frame, got {kind!r:.80}")
    return Head(Kind(kind), fields, payload_bytes)
