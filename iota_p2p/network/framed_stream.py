"""Frames over a stream, with patience measured."""

import trio

from iota_p2p.network.stream_limits import StreamLimits
from iota_p2p.network.traffic import Traffic
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_protocols.framing import Frame, FrameDecoder, Head, encode_head
from iota_p2p_protocols.ids import ProtocolSpec

# One read of a payload: large enough that Python's cost per read does not count.
_READ_BYTES = 2**20
# A payload up to here goes out in one piece with its head, and a small frame comes in with one read: each piece wakes
# two daemons and two event loops (a fifth of a 1 KiB call's CPU).
_SMALL_BYTES = 16 * 2**10


class SlowPeerError(RemoteProtocolError):
    """The other side sends or takes bytes too slowly to be waited for."""


class FramedStream:
    """One stream of one protocol; one task at a time uses it.

    After a cancelled or failed method the stream is out of step and can only be closed.
    """

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, spec: ProtocolSpec, limits: StreamLimits, traffic: Traffic
    ) -> None:
        self._stream = stream
        self._traffic = traffic
        self._spec = spec
        self._limits = limits
        self._decoder = FrameDecoder(max_header_bytes=spec.max_header_bytes, max_payload_bytes=spec.max_payload_bytes)
        self._frame: Frame | None = None  # complete, not yet taken
        self._ahead = b""  # read, not yet decoded

    @property
    def untouched(self) -> bool:
        """True if no byte of the frame that we wait for has come."""
        return self._decoder.idle and self._frame is None and not self._ahead

    async def send(self, frame: Frame) -> None:
        """Send a frame, waiting for as long as the other side does not read."""
        payload = memoryview(frame.payload).cast("B")
        head = encode_head(
            Head(frame.kind, frame.fields, len(payload)),
            max_header_bytes=self._spec.max_header_bytes,
            max_payload_bytes=self._spec.max_payload_bytes,
        )
        self._traffic.header_bytes += len(head)
        if len(payload) <= _SMALL_BYTES:
            await self._stream.send_all(head + payload)
        else:
            await self._stream.send_all(head)
            began_s = trio.current_time()
            await self._stream.send_all(payload)
            self._traffic.upload.note(len(payload), trio.current_time() - began_s)

    async def send_in_time(self, frame: Frame) -> None:
        """Send a frame; raises SlowPeerError if the other side does not read it in time."""
        size_bytes = len(memoryview(frame.payload).cast("B"))
        with trio.move_on_after(self._patience_s(size_bytes)):
            await self.send(frame)
            return
        raise SlowPeerError("slow-reader", f"expected {size_bytes} bytes to be read in time, got a timeout")

    async def begin(self) -> bool:
        """Wait for the first byte of the next frame; return False if the stream ends instead."""
        return await self._read()

    async def receive_head(self) -> Head:
        """Return the head of the frame that has begun; raises SlowPeerError if it takes too long."""
        if not self._has_head:
            with trio.move_on_after(self._limits.header_timeout_s):
                while not self._has_head:
                    await self._read_more()
        if self._frame is not None:
            return Head(self._frame.kind, self._frame.fields, 0)
        if self._decoder.head is not None:
            return self._decoder.head
        raise SlowPeerError(
            "slow-header", f"expected a header within {self._limits.header_timeout_s} s of its first byte, got none"
        )

    async def receive_payload(self) -> Frame:
        """Return the whole frame whose head has come; raises SlowPeerError if its payload comes too slowly."""
        if self._frame is None:
            self._decode()  # a small one has come with its head
        if self._frame is None:
            missing_bytes = self._decoder.wanted
            began_s = trio.current_time()
            with trio.move_on_after(self._patience_s(missing_bytes)):
                while self._frame is None:
                    await self._read_more()
            if self._frame is None:
                raise SlowPeerError("slow-payload", f"expected {missing_bytes} bytes in time, got a timeout")
            self._traffic.download.note(missing_bytes, trio.current_time() - began_s)
        frame, self._frame = self._frame, None
        return frame

    async def skip_payload(self) -> None:
        """Read the payload whose head has come, keeping none of it."""
        self._decoder.skip_payload()
        await self.receive_payload()

    async def aclose(self) -> None:
        """Close at once, even when cancelled."""
        with trio.CancelScope(shield=True):  # a stream of a host never waits for its closing
            await self._stream.aclose()

    @property
    def _has_head(self) -> bool:
        return self._decoder.head is not None or self._frame is not None

    def _patience_s(self, size_bytes: int) -> float:
        return self._limits.grace_s + size_bytes / self._limits.min_bytes_per_s

    async def _read(self) -> bool:
        """Read something, unless there is some left, and decode it; return False at the end of the stream."""
        if not self._ahead:
            wanted_bytes = max(self._decoder.wanted, _SMALL_BYTES)
            self._ahead = bytes(await self._stream.receive_some(min(wanted_bytes, _READ_BYTES)))
        begun = bool(self._ahead)
        self._decode()
        return begun

    def _decode(self) -> None:
        """Decode what has been read, up to the end of a frame's head or payload."""
        had_head = self._decoder.head is not None
        while self._ahead and self._frame is None and (had_head or self._decoder.head is None):
            wanted_bytes = self._decoder.wanted
            data, self._ahead = self._ahead[:wanted_bytes], self._ahead[wanted_bytes:]
            for frame in self._decoder.feed(data):
                self._frame = frame  # what is decoded never goes past one frame

    async def _read_more(self) -> None:
        if not await self._read():
            raise trio.BrokenResourceError("expected the rest of a frame, got the end of the stream")
