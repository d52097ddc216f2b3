"""A run's spec and data at this peer: served to others, and fetched from them. Needs no torch, so it need not wait."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from iota_p2p.peer import Peer
from iota_p2p.run.exchange import serve_run
from iota_p2p.run.shard_fetch import ShardProgress, fetch_shards
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunSpec
from iota_p2p.voice import Voice
from iota_p2p_crypto.identity import PeerId


@dataclass(slots=True)
class RunSupply:
    """What a peer has of its run.

    Attributes:
        peer: the running peer.
        spec: the run.
        store: its shards; all of them once `fetch` has returned.
        voice: told how far they have come.
        epoch_of: returns the epoch that the run is in, which joiners ask for.
    """

    peer: Peer
    spec: RunSpec
    store: ShardStore
    voice: Voice
    epoch_of: Callable[[], int]
    _told_s: float = 0.0

    async def fetch(self) -> None:
        """Serve the run to others from now on; return when its data is here."""
        streams = self.peer.network.streams
        await serve_run(streams, self.spec, self.store, lambda: self.epoch_of())  # noqa: PLW0108 - it may be set later
        await fetch_shards(streams, self._sources, self.spec, self.store, self._report)

    def _sources(self) -> Sequence[PeerId]:
        return [peer_id for peer_id in self.peer.view.live() if peer_id != self.peer.identity.peer_id]

    def _report(self, progress: ShardProgress) -> None:
        """Tell the first, the last, and one a second in between."""
        now_s = trio.current_time()
        if 1 < progress.num_present < progress.num_shards and now_s < self._told_s + 1:
            return
        self._told_s = now_s
        text = f"data     {progress.num_present} of {progress.num_shards} shards"
        self.voice.say("data", text, num_present=progress.num_present, num_shards=progress.num_shards)
