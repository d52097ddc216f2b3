"""Bytes in flight, admitted fairly between peers before they are read."""

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from iota_p2p_crypto.identity import PeerId


class _Place:
    """A request waiting in line."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.admitted = trio.Event()


class ByteBudget:
    """Lets payloads in while there is room in total and for their peer.

    Each peer has a line of its own and the lines take turns, so that a peer with a thousand requests waits behind
    another's first. The next in turn is waited for if there is no room in total yet: large payloads do not starve
    behind small ones.
    """

    def __init__(self, total_bytes: int, per_peer_bytes: int) -> None:
        self._free_bytes = total_bytes
        self._per_peer_bytes = per_peer_bytes
        self._used_bytes: dict[PeerId, int] = {}
        self._lines: OrderedDict[PeerId, deque[_Place]] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """Bytes admitted now."""
        return sum(self._used_bytes.values())

    @asynccontextmanager
    async def admit(self, peer_id: PeerId, size_bytes: int) -> AsyncIterator[None]:
        """Wait for room, and take it until the context ends; cancelling leaves the line."""
        place = _Place(size_bytes)
        self._lines.setdefault(peer_id, deque()).append(place)
        self._admit_next()
        try:
            if not place.admitted.is_set():
                await place.admitted.wait()
            yield
        finally:
            if place.admitted.is_set():
                self._release(peer_id, size_bytes)
            else:
                self._leave(peer_id, place)
            self._admit_next()

    def _release(self, peer_id: PeerId, size_bytes: int) -> None:
        self._free_bytes += size_bytes
        used_bytes = self._used_bytes.pop(peer_id, 0) - size_bytes  # nothing noted: only empty payloads are here
        if used_bytes:
            self._used_bytes[peer_id] = used_bytes

    def _leave(self, peer_id: PeerId, place: _Place) -> None:
        self._lines[peer_id].remove(place)
        if not self._lines[peer_id]:
            del self._lines[peer_id]

    def _admit_next(self) -> None:
        while (peer_id := self._next_peer()) is not None:
            place = self._lines[peer_id][0]
            if place.size_bytes > self._free_bytes:
                return
            self._leave(peer_id, place)
            if peer_id in self._lines:
                self._lines.move_to_end(peer_id)
            self._free_bytes -= place.size_bytes
            self._used_bytes[peer_id] = self._used_bytes.get(peer_id, 0) + place.size_bytes
            place.admitted.set()

    def _next_peer(self) -> PeerId | None:
        """Return the first peer in turn whose own share has room for its first request."""
        for peer_id, line in self._lines.items():
            if self._used_bytes.get(peer_id, 0) + line[0].size_bytes <= self._per_peer_bytes:
                return peer_id
        return None
