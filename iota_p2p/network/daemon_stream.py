"""The bytes of one stream, with an end that can be told from a break.

The daemon cannot half-close: when one side shuts its write side, both daemons tear down the whole stream, and what
the other side still had to say is lost. Nor does it pass on a reset, or its own death: each looks to the other
end like an orderly end of stream (all measured with the daemon of hivemind 1.1.12). So both ends of a stream
speak chunks, as HTTP/1.1 does:

    chunk = length (4 bytes, big-endian) || that many bytes
    end   = length 0

`send_all` writes one chunk (none for no bytes), `send_eof` writes the end. Bytes that stop without an end are a
broken stream. The length of a chunk is never allocated, so nothing a peer writes there costs memory.
"""

import trio

from iota_p2p_crypto.errors import LocalProtocolError

_LENGTH_BYTES = 4
_MAX_CHUNK_BYTES = 2**32 - 1
# Up to here one system call with a copied body is cheaper than two without a copy (measured).
_JOIN_BYTES = 32 * 2**10
# Anything from 32 to 512 KiB measures the same: the daemon writes 32 KiB at a time, a unix socket holds 208 KiB.
_RECEIVE_BYTES = 128 * 2**10


class ChunkedStream(trio.abc.HalfCloseableStream):
    """A half-closeable stream of chunks over a transport stream that need not be half-closeable.

    Closing without `send_eof` is a reset: the other end gets `BrokenResourceError`. A cancelled `send_all` may
    have written part of a chunk; after it the stream can only be closed, and the other end gets that error.
    """

    def __init__(self, transport: trio.abc.Stream, received: bytes = b"") -> None:
        """Take over `transport`; `received` are bytes of the stream that were already read from it."""
        self._transport = transport
        self._received = received
        self._offset = 0  # of the first byte of `_received` not yet used
        self._remaining = 0  # bytes of the current incoming chunk not yet given out
        self._receive_ended = False
        self._sending = False
        self._send_ended = False
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes as one chunk; raises BrokenResourceError if the stream broke."""
        if self._send_ended:
            raise trio.ClosedResourceError("expected no bytes after send_eof")
        view = memoryview(data).cast("B")
        if not view:
            await trio.lowlevel.checkpoint()
        elif len(view) > _MAX_CHUNK_BYTES:
            raise LocalProtocolError(f"expected at most {_MAX_CHUNK_BYTES} bytes in one send, got {len(view)}")
        else:
            await self._send_chunk(len(view).to_bytes(_LENGTH_BYTES, "big"), view)

    async def _send_chunk(self, header: bytes, body: bytes | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("expected one task to send on this stream, got another one")
        self._sending = True
        try:
            if len(body) <= _JOIN_BYTES:
                await self._transport.send_all(header + body)
            else:
                await self._transport.send_all(header)
                await self._transport.send_all(body)
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a send would probably not block."""
        await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Announce that no more bytes follow; receiving goes on. A second call does nothing."""
        if self._send_ended:
            await trio.lowlevel.checkpoint()
            return
        await self._send_chunk(bytes(_LENGTH_BYTES), b"")
        self._send_ended = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return received bytes, or none after the other end's `send_eof`; cancelling loses nothing.

        Raises:
            BrokenResourceError: if the bytes stop without an announced end.
        """
        if self._closed:
            raise trio.ClosedResourceError("expected an open stream, got a closed one")
        if self._receive_ended or self._offset < len(self._received):
            await trio.lowlevel.checkpoint()  # nothing below may have to wait
        if not self._remaining and not self._receive_ended:
            await self._start_chunk()
        if self._receive_ended:
            return b""
        if self._offset == len(self._received):
            self._received, self._offset = await self._receive_transport(), 0
        start, size = self._offset, len(self._received) - self._offset
        size = min(size, self._remaining, size if max_bytes is None else max_bytes)
        self._offset += size
        self._remaining -= size
        # The inner pieces of a large chunk are passed on as they came, uncopied (slicing all of it does not copy).
        return self._received[start : start + size]

    async def _start_chunk(self) -> None:
        while len(self._received) - self._offset < _LENGTH_BYTES:
            more = await self._receive_transport()  # cancelled here, nothing is lost
            self._received, self._offset = self._received[self._offset :] + more, 0
        start, self._offset = self._offset, self._offset + _LENGTH_BYTES
        self._remaining = int.from_bytes(self._received[start : self._offset], "big")
        self._receive_ended = not self._remaining

    async def _receive_transport(self) -> bytes:
        data = bytes(await self._transport.receive_some(_RECEIVE_BYTES))
        if not data:
            raise trio.BrokenResourceError("expected the stream's end to be announced, got it broken off")
        return data

    async def linger(self) -> None:
        """If the end has been announced, drop what comes in until the other end has closed too.

        Without this, closing could take back the last bytes sent: the daemon resets a stream whose socket is closed
        with unread bytes in it (the other end's announcement, for one), and a reset overtakes them.
        """
        while self._send_ended and await self._transport.receive_some(_RECEIVE_BYTES):
            pass

    async def aclose(self) -> None:
        """Close at once; without `send_eof` before it this is a reset."""
        self._closed = True
        self._received = b""
        await trio.aclose_forcefully(self._transport)
