"""Length-delimited messages, as libp2p writes them: an unsigned varint (LEB128) and so many bytes."""

from iota_p2p_crypto.errors import MalformedError, OversizedError

# Largest message either way: a gossip message of 1 MiB and its envelope, or a list of some thousands of peers.
MAX_MESSAGE_BYTES = 2 * 2**20
_MAX_LENGTH_BYTES = 4  # a varint length under 2**28
_CONTINUED = 0x80  # the bit of a varint byte that says another one follows


def encode_varint(number: int) -> bytes:
    """Return a non-negative number as an unsigned varint (LEB128)."""
    out = bytearray()
    while number >= _CONTINUED:
        out.append(number % _CONTINUED | _CONTINUED)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: bytes | bytearray, start: int, max_bytes: int) -> tuple[int, int] | None:
    """Return (number, position behind it), or None if the bytes end inside it.

    Raises:
        MalformedError: if it is longer than `max_bytes`.
    """
    number = 0
    for offset, byte in enumerate(data[start : start + max_bytes]):
        number |= (byte % _CONTINUED) << (7 * offset)
        if byte < _CONTINUED:
            return number, start + offset + 1
    if len(data) - start >= max_bytes:
        raise MalformedError("varint", f"expected a varint of at most {max_bytes} bytes, got a longer one")
    return None


def delimit(body: bytes) -> bytes:
    """Return a message body with its length in front."""
    return encode_varint(len(body)) + body


class MessageSplitter:
    """Cuts received bytes into the bodies of length-delimited messages; whatever follows them is `rest`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next received bytes."""
        self._buffer += data

    def next_body(self) -> bytes | None:
        """Return the next whole message body, or None until more bytes are fed.

        Raises:
            OversizedError: if the announced length is over MAX_MESSAGE_BYTES.
            MalformedError: if the length is no varint.
        """
        found = decode_varint(self._buffer, 0, _MAX_LENGTH_BYTES)
        if found is None:
            return None
        length, start = found
        if length > MAX_MESSAGE_BYTES:
            raise OversizedError("control-message", f"expected at most {MAX_MESSAGE_BYTES} bytes, got {length}")
        if len(self._buffer) < start + length:
            return None
        body = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        return body

    def take_rest(self) -> bytes:
        """Return and forget the bytes that belong to no message yet: the start of the stream behind them."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
