"""Several byte strings as one payload: (length 4 bytes big-endian || bytes)*."""

from collections.abc import Iterator

from iota_p2p_protocols.errors import MalformedError

_LENGTH_BYTES = 4


def put(payload: bytearray, part: bytes, max_bytes: int) -> bool:
    """Append one more part if the payload stays within `max_bytes` with it; return whether it did."""
    if len(payload) + _LENGTH_BYTES + len(part) > max_bytes:
        return False
    payload += len(part).to_bytes(_LENGTH_BYTES, "big") + part
    return True


def parts_of(payload: bytes, rule: str, what: str) -> Iterator[bytes]:
    """Yield the parts; raises MalformedError, by the protocol's own rule, if the last of `what` is not whole."""
    position = 0
    while position < len(payload):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(payload[position:start], "big")
        if start > len(payload) or position > len(payload):
            raise MalformedError(rule, f"expected whole {what}, got part of one")
        yield payload[start:position]
