"""Whom the daemon is connected to, and how it comes back to them after a restart.

libp2p lets nobody dial for some 5 s who has dialled in vain. Whoever misses a peer whose daemon died has often done so
(GossipSub and the DHT try by themselves), a fresh daemon never: so it is the restarted one that calls the others back.
For that we must know all of them when it dies.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

import trio

from iota_p2p.network.control import PeerInfo
from iota_p2p.network.daemon_runs import DaemonRuns
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId

# How often the open connections are noted, and the bootstrap peers are tried while none is connected, when nobody new
# is met meanwhile; one small request to the daemon each time. The second is the least, however many come and go.
_LOOK_ROUND_S, _MIN_LOOK_S = 2.0, 0.1
# At most so many peers are dialled again: a few neighbours bring the rest back.
_MAX_REDIALS = 128
# Between two looks whether a restarted daemon is whole, which takes some 0.3 s.
_SETTLE_POLL_S = 0.05
# What the daemon says instead of a reason when it refuses to dial an address again so soon.
_BACKOFF = "dial backoff"

_log = logging.getLogger(__name__)


class Neighbours:
    """The peers that our daemon, run after run, is connected to."""

    def __init__(self, runs: DaemonRuns, bootstrap: Sequence[PeerInfo]) -> None:
        """Begin with nobody; `bootstrap` are dialled again and again while none of them is connected."""
        self._runs = runs
        self._client = runs.client
        self._bootstrap = bootstrap
        self._known: dict[PeerId, PeerInfo] = {}
        self._met_stranger = trio.Event()
        self._redialling = False
        self._dial_failures: dict[PeerId, str] = {}

    async def settled(self) -> int:
        """Wait until the daemon answers and is whole; return how many runs of it there were (see `Host`)."""
        while True:
            with suppress(PeerUnavailableError):
                await self._client.ping()  # one that hangs answers never, but is killed
                if not self._restoring:
                    return self._runs.num_runs
            await trio.sleep(_SETTLE_POLL_S)

    async def connect(self, peer: PeerInfo) -> None:
        """Connect to a peer; raises PeerUnavailableError."""
        try:
            await self._client.connect(peer)
        except PeerUnavailableError as error:
            raise self._explained(peer.peer_id, error) from error
        self._known[peer.peer_id] = peer

    def forget(self, peer_id: PeerId) -> None:
        """Do not dial a peer again."""
        self._known.pop(peer_id, None)

    def note(self, peer_id: PeerId) -> None:
        """Note that there is a stream with a peer; a new one is looked at now, as the daemon may die any moment."""
        if peer_id not in self._known:
            self._met_stranger.set()

    def begin_redial(self, nursery: trio.Nursery) -> None:
        """Dial those who were connected, in the background; the daemon is whole when all have been tried."""
        self._redialling = True
        nursery.start_soon(self._redial)

    async def _redial(self) -> None:
        await self._dial(list(self._known.values())[:_MAX_REDIALS])
        self._redialling = False

    async def dial_bootstrap(self) -> None:
        """Try all bootstrap peers once."""
        await self._dial(self._bootstrap)

    async def run(self) -> None:
        """Note who is connected, and try the bootstrap peers while none of them is, until cancelled."""
        while True:
            await trio.sleep(_MIN_LOOK_S)
            with trio.move_on_after(_LOOK_ROUND_S - _MIN_LOOK_S):
                await self._met_stranger.wait()
            self._met_stranger = trio.Event()
            with suppress(PeerUnavailableError):
                connected = {peer.peer_id: peer for peer in await self._client.connections()}
                # Until a new run of the daemon is whole, the neighbours of the last one are still wanted.
                if not self._restoring:
                    self._known = connected
                if not any(peer.peer_id in connected for peer in self._bootstrap):
                    await self.dial_bootstrap()

    @property
    def _restoring(self) -> bool:
        return self._redialling or self._runs.changing.locked()

    async def _dial(self, peers: Iterable[PeerInfo]) -> None:
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._try_connect, peer)

    async def _try_connect(self, peer: PeerInfo) -> None:
        try:
            await self._client.connect(peer)
        except PeerUnavailableError as error:
            self._explained(peer.peer_id, error)
            _log.info("peer not reached", extra={"peer": peer.peer_id, "reason": str(error)})

    def _explained(self, peer_id: PeerId, error: PeerUnavailableError) -> PeerUnavailableError:
        """Return the error; if the daemon only says that it has lately tried in vain, what came of that."""
        if _BACKOFF in str(error):
            return PeerUnavailableError(self._dial_failures.get(peer_id, str(error)))
        self._dial_failures[peer_id] = str(error)
        if len(self._dial_failures) > _MAX_REDIALS:
            self._dial_failures.pop(next(iter(self._dial_failures)))
        return error
