"""Outgoing streams kept open between calls, so that most calls need no round trip to open one."""

from collections import OrderedDict
from dataclasses import dataclass

import trio

from iota_p2p.network.framed_stream import FramedStream
from iota_p2p.network.host import Host
from iota_p2p.network.stream_limits import StreamLimits
from iota_p2p.network.traffic import Traffic
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.ids import ProtocolSpec

# Idle streams in total, the longest idle closed first: a swarm's worth of peers, some protocols each.
MAX_IDLE_STREAMS = 512

_Key = tuple[PeerId, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Idle:
    key: _Key
    framed: FramedStream
    expires_s: float


class StreamPool:
    """The idle streams of one node, oldest first."""

    def __init__(self, host: Host, limits: StreamLimits, traffic: Traffic) -> None:
        self._host = host
        self._traffic = traffic
        self._limits = limits
        self._idle: OrderedDict[_Idle, None] = OrderedDict()
        self._by_key: dict[_Key, list[_Idle]] = {}

    def __len__(self) -> int:
        """Return how many streams are idle."""
        return len(self._idle)

    def take_idle(self, peer_id: PeerId, spec: ProtocolSpec) -> FramedStream | None:
        """Take the most recently used idle stream, if there is one."""
        waiting = self._by_key.get((peer_id, spec.id))
        return self._remove(waiting[-1]) if waiting else None

    async def open(self, peer_id: PeerId, spec: ProtocolSpec) -> FramedStream:
        """Open a fresh stream; raises PeerUnavailableError."""
        opened = await self._host.open_stream(peer_id, spec.id)
        return FramedStream(opened.stream, spec, self._limits, self._traffic)

    async def put(self, peer_id: PeerId, spec: ProtocolSpec, framed: FramedStream) -> None:
        """Keep a stream that is between two calls, or close it if enough are kept."""
        key = (peer_id, spec.id)
        if len(self._by_key.get(key, ())) >= self._limits.max_idle_streams:
            await framed.aclose()
            return
        idle = _Idle(key, framed, trio.current_time() + self._limits.reuse_s)
        self._idle[idle] = None
        self._by_key.setdefault(key, []).append(idle)
        if len(self._idle) > MAX_IDLE_STREAMS:
            await self._remove(next(iter(self._idle))).aclose()

    def _remove(self, idle: _Idle) -> FramedStream:
        del self._idle[idle]
        self._by_key[idle.key].remove(idle)
        if not self._by_key[idle.key]:
            del self._by_key[idle.key]
        return idle.framed

    async def run(self) -> None:
        """Close what has been idle for too long, until cancelled."""
        while True:
            now_s, reuse_s = trio.current_time(), self._limits.reuse_s
            first_s = next(iter(self._idle)).expires_s if self._idle else now_s + reuse_s
            await trio.sleep_until(max(first_s, now_s + reuse_s / 4))  # several together
            while self._idle and next(iter(self._idle)).expires_s <= trio.current_time():
                await self._remove(next(iter(self._idle))).aclose()

    async def aclose(self) -> None:
        """Close all."""
        while self._idle:
            await self._remove(next(iter(self._idle))).aclose()
