"""The custodian's side of a push: checks what it is asked to keep, and keeps it if it is its turn and there is room."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from iota_p2p.custody.fetch_journal import Beside
from iota_p2p.custody.kept_states import KeptStates
from iota_p2p.network.streams import Request, Response
from iota_p2p.training.stage_state import StateBounds
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.custody import (
    NUM_CANDIDATES,
    PushRequest,
    PutRequest,
    Wanted,
    check_push,
    pack_indices,
    rank,
)
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.state_manifest import Listing, check_listing, open_listing
from iota_p2p_protocols.view import View

T = TypeVar("T")


@dataclass(slots=True)
class Custodian:
    """Keeps states for others.

    Attributes:
        run_id: our run.
        num_stages: of the run.
        kept: what we keep.
        view: whom we believe to be there, ourselves among them.
        holders: returns who serves a stage.
        bounds: what a stage's state can be.
        clock: Unix seconds.
        beside: does the disk's work.
    """

    run_id: bytes
    num_stages: int
    kept: KeptStates
    view: View
    holders: Callable[[int], set[PeerId]]
    bounds: Callable[[int], StateBounds]
    clock: Callable[[], float]
    beside: Beside
    _disk: trio.Lock = field(default_factory=trio.Lock)  # one call on `kept` at a time

    async def answer(self, caller: PeerId, request: Request) -> Response:
        """Answer one call of CUSTODY; raises RemoteProtocolError if the caller broke a rule."""
        if "index" in request.header:
            put = PutRequest.from_fields(request.header)
            store = partial(self.kept.put, Digest(put.manifest), put.index, bytes(request.payload), self.clock())
            await self._on_disk(store)
            return Response({})
        pushed = PushRequest.from_fields(request.header)
        listing = open_listing(pushed.manifest, request.payload, run_id=self.run_id, now_s=self.clock())
        self._check(listing, caller)
        missing = await self._on_disk(partial(self.kept.offer, listing, self.clock()))
        return Response(Wanted().to_fields(), pack_indices(missing))

    async def chunk(self, name: Digest) -> bytes | None:
        """Return a chunk that we keep; a damaged one is set aside, and its pusher will find it missing."""
        return await self.beside(partial(self.kept.chunks.get, name))

    def best(self, stage: int) -> Listing | None:
        """Return the best state that we keep of a stage."""
        return self.kept.best(stage, self.clock())

    def _check(self, listing: Listing, caller: PeerId) -> None:
        stage = listing.state.stage
        # [push-signer] the caller signed it
        check_push(listing.manifest, caller)
        # [push-stage] the run has such a stage
        if stage >= self.num_stages:
            raise MalformedError("push-stage", f"expected a stage below {self.num_stages}, got {stage}")
        # [state-size] it can be that stage's
        bounds = self.bounds(stage)
        check_listing(listing, stage, bounds.max_bytes, bounds.weights_bytes)
        # Views differ for a while, so what follows is no offence.
        holders = self.holders(stage)
        if caller not in holders:
            raise RefusedError("not-a-holder", f"expected a holder of stage {stage}, got {caller}")
        if self.view.me not in rank(self.run_id, stage, set(self.view.live()) - holders)[:NUM_CANDIDATES]:
            raise RefusedError("not-my-turn", f"expected another custodian for stage {stage}, got us")

    async def _on_disk(self, work: Callable[[], T]) -> T:
        async with self._disk:
            try:
                return await self.beside(work)
            except OSError as error:
                raise RefusedError("disk", f"expected the disk to take it, got {error.strerror}") from error
