"""How the peers of a run find each other: provider records in the DHT, under keys of `protocols`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from iota_p2p.network.host import Host
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.rendezvous import key

# Records live for 24 h, but the hosts that keep them come and go much faster (go-libp2p republishes every 12 h
# in a network far calmer than a swarm of volunteers).
PROVIDE_AGAIN_S = 15 * 60.0
# Alone, or with the daemon down: soon somebody may be there.
RETRY_S = 5.0
# A lookup or announcement that takes longer has met dead hosts only (measured: 0.2 s).
ATTEMPT_TIMEOUT_S = 30.0


class Rendezvous:
    """The meeting points of one run."""

    def __init__(self, host: Host, run_id: bytes) -> None:
        self._host = host
        self._run_id = run_id

    @asynccontextmanager
    async def provided(self, purpose: str, epoch: int) -> AsyncIterator[None]:
        """Be found under a purpose and epoch, soon and for as long as the context lasts.

        The record is not withdrawn afterwards: whoever finds us a little later must cope, as with a crash.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_providing, key(self._run_id, purpose, epoch))
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def _keep_providing(self, record_key: bytes) -> None:
        while True:
            pause_s = RETRY_S
            try:
                with trio.move_on_after(ATTEMPT_TIMEOUT_S):
                    await self._host.provide(record_key)
                    pause_s = PROVIDE_AGAIN_S
            except PeerUnavailableError:
                pass  # nobody is there yet
            await trio.sleep(pause_s)

    async def find(self, purpose: str, epoch: int, *, limit: int) -> Sequence[PeerId]:
        """Return up to `limit` peers found under a purpose and epoch, ourselves among them if we provide.

        Raises:
            PeerUnavailableError: if there is nobody to ask.
        """
        return await self._host.find_providers(key(self._run_id, purpose, epoch), limit)
