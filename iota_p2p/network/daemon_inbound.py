"""Inbound streams: the daemon dials our unix socket for each, says who it is from, and hands over the bytes."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import trio

from iota_p2p.network import control
from iota_p2p.network.control_client import ControlReader
from iota_p2p.network.host import HostStream, StreamHandler
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId

# In total: each is a task and two file descriptors (here and in the daemon), and 4,096 descriptors are a common
# limit. More than a busy peer needs: some tens of neighbours with a few pooled streams each.
MAX_INBOUND_STREAMS = 1024
# So that no single peer can take them all.
MAX_INBOUND_STREAMS_PER_PEER = 256
# The daemon writes it in the same moment as it dials; only something that is not the daemon takes longer.
_INTRODUCTION_S = 5.0
# How long after a handler's announced end the other end may take to close; then it is a reset.
_LINGER_S = 2.0
_BACKLOG = 1024  # dials of the daemon that we have not got round to; the kernel caps it at its own limit

_log = logging.getLogger(__name__)


class InboundStreams:
    """Serves every protocol in `handlers`, one task per stream."""

    def __init__(self, path: Path) -> None:
        """Prepare to listen at `path`, which must lie in a folder that only our user can enter."""
        self.path = path
        self.handlers: dict[str, StreamHandler] = {}
        self.on_stream: Callable[[PeerId], None] = lambda _: None
        self._num_streams = 0
        self._num_of_peer: Counter[PeerId] = Counter()

    async def listen(self) -> trio.SocketListener:
        """Open the unix socket that the daemon dials."""
        listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listener.bind(str(self.path))
        listener.listen(_BACKLOG)
        return trio.SocketListener(listener)

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve until cancelled; raises what a handler raises by mistake (see `Host.handle`)."""
        await trio.serve_listeners(self._welcome, [listener])

    async def _welcome(self, connection: trio.SocketStream) -> None:
        async with connection:
            if self._num_streams >= MAX_INBOUND_STREAMS:
                _log.warning("inbound stream refused", extra={"limit": MAX_INBOUND_STREAMS})
                return
            self._num_streams += 1
            try:
                await self._introduce(connection)
            finally:
                self._num_streams -= 1

    async def _introduce(self, connection: trio.SocketStream) -> None:
        reader = ControlReader(connection)
        info = None
        with trio.move_on_after(_INTRODUCTION_S):
            try:
                info = control.read_stream_info(await reader.next_body())
            except (RemoteProtocolError, PeerUnavailableError) as error:
                _log.warning("inbound stream without a proper introduction", extra={"reason": str(error)})
        handler = self.handlers.get(info.protocol) if info else None
        if info is None or handler is None:
            return
        if self._num_of_peer[info.peer_id] >= MAX_INBOUND_STREAMS_PER_PEER:
            _log.warning("inbound stream refused", extra={"peer": info.peer_id, "limit": MAX_INBOUND_STREAMS_PER_PEER})
            return
        self._num_of_peer[info.peer_id] += 1
        self.on_stream(info.peer_id)
        try:
            await self._run_handler(handler, reader, info)
        finally:
            self._num_of_peer[info.peer_id] -= 1
            if not self._num_of_peer[info.peer_id]:
                del self._num_of_peer[info.peer_id]

    async def _run_handler(self, handler: StreamHandler, reader: ControlReader, info: control.StreamInfo) -> None:
        stream = reader.into_stream()
        try:
            await handler(HostStream(info.peer_id, info.protocol, stream))
            with trio.move_on_after(_LINGER_S):
                await stream.linger()
        except* (
            RemoteProtocolError,
            PeerUnavailableError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
        ) as errors:
            _log.debug("inbound stream reset", extra={"peer": info.peer_id, "reason": repr(errors.exceptions)})
        finally:
            await trio.aclose_forcefully(stream)
