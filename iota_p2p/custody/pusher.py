"""`Pusher`: gives the states of the stages we hold to custodians elsewhere, again and again.

In a run that merges a custodian gets what each epoch began with, and nothing of what we have done since. In one that
does not, and in any run's first epoch, it gets the state as it is, and again within the epoch when much of its work
would be lost with us. Who becomes a custodian gets it at once. Only chunks that the custodian lacks travel. Between
two chunks the pusher rests so long that it is busy for `LINK_SHARE` of the time, which bounds the link's share without
knowing the link.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from iota_p2p.custody.snapshots import SignedState
from iota_p2p.network.streams import Request, Streams
from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.custody import PushRequest, PutRequest, Wanted, custodians, open_indices, pusher
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import CUSTODY
from iota_p2p_protocols.view import View

LOOK_EVERY_S = 1.0
# Where nothing is settled. A young stage would lose most of what it has learnt, an old one little: within an epoch it
# is pushed again when so many of all its steps are new, but not before the one time and not after the other.
MAX_LOST_SHARE = 0.2
PUSH_AFTER_S = 10.0
PUSH_EVERY_S = 60.0
# Of the uplink; activations and merges need the rest. 100 MB to three custodians over 4 Mbit/s take 40 minutes.
LINK_SHARE = 0.25
# A custodian that did not take a chunk in this time is passed over; 1 MiB over a home uplink takes 2 s.
CHUNK_PATIENCE_S = 20.0
# The rest after a chunk, at most: a custodian's hiccup is not our link's.
MAX_REST_S = 30.0
# One that refused is asked again soon, as its view may have been behind ours; one that hung or died after long.
RETRY_REFUSED_S = 5.0
RETRY_FAILED_S = 60.0

_log = logging.getLogger(__name__)
_FAILURES = (PeerUnavailableError, RefusedError, RemoteProtocolError, trio.TooSlowError)


@dataclass(frozen=True, slots=True)
class _Pushed:
    """What a custodian has of a stage, and since when.

    `retry_s` is after how long to ask again one that did not take it; None if it did.
    """

    epoch: int
    num_steps: int
    at_s: float
    retry_s: float | None


def is_settled(held: HeldStage) -> bool:
    """Return whether a stage's replicas agree on what its epoch began with, and somebody had trained that."""
    return held.base is not None and held.compute.num_steps > held.steps_in_epoch


@dataclass(slots=True)
class Pusher:
    """Pushes the stages of a work share.

    Attributes:
        share: what we hold.
        view: who is there.
        streams: how custodians are called.
        take: returns the state to be pushed; raises RefusedError if there is none.
        rng: of when we look.
        on_push: told the stage, the custodian and the bytes of every push that was taken.
        pushed_bytes: of chunks, so far.
    """

    share: WorkShare
    view: View
    streams: Streams
    take: Callable[[int], Awaitable[SignedState]]
    rng: Random
    on_push: Callable[[int, PeerId, int], None] = lambda *_: None
    pushed_bytes: int = 0
    _pushed: dict[tuple[int, PeerId], _Pushed] = field(default_factory=dict)

    async def run(self) -> None:
        """Keep pushing until cancelled."""
        while True:
            # At moments of our own: peers that start together do not push together.
            await trio.sleep(LOOK_EVERY_S * self.rng.uniform(0.5, 1.5))
            for stage in sorted(self.share.stages):
                due = self._due(stage)
                if due:
                    await self._push(stage, due)

    def _due(self, stage: int) -> Sequence[PeerId]:
        held = self.share.stages.get(stage)
        # What nobody has trained yet is drawn from the run's seed by whoever takes it.
        if held is None or held.compute.num_steps == 0:
            return ()
        run_id, me = self.share.terms.run_id, self.share.identity.peer_id
        holders = {*self.share.routes.replicas(stage), me}
        chosen = custodians(run_id, stage, self.view.live(), holders)
        self._forget(stage, chosen)
        if pusher(run_id, stage, holders) != me:
            return ()
        return [peer_id for peer_id in chosen if self._is_due(held, self._pushed.get((stage, peer_id)))]

    def _is_due(self, held: HeldStage, last: _Pushed | None) -> bool:
        if last is None:
            return True
        age_s = trio.current_time() - last.at_s
        if last.retry_s is not None:
            return age_s >= last.retry_s
        if last.epoch < held.epoch or is_settled(held):
            return last.epoch < held.epoch
        new_steps = held.compute.num_steps - last.num_steps
        if age_s >= PUSH_AFTER_S and new_steps > MAX_LOST_SHARE * held.compute.num_steps:
            return True
        return age_s >= PUSH_EVERY_S and new_steps != 0

    def _forget(self, stage: int, chosen: Sequence[PeerId]) -> None:
        """Forget those who are custodians no more: should they be again, they will say what they still have."""
        gone = [key for key in self._pushed if key[0] == stage and key[1] not in chosen]
        for key in gone:
            del self._pushed[key]

    async def _push(self, stage: int, targets: Sequence[PeerId]) -> None:
        try:
            state = await self.take(stage)
        except RefusedError as error:
            _log.debug("state not frozen", extra={"stage": stage, "reason": str(error)})
            return
        claims = state.listing.state
        for target in targets:
            retry_s: float | None
            try:
                num_bytes = await self._push_to(target, state)
            except _FAILURES as error:
                reason = str(error) or "too slow"
                _log.info("state not pushed", extra={"stage": stage, "peer": target, "reason": reason})
                retry_s = RETRY_REFUSED_S if isinstance(error, RefusedError) else RETRY_FAILED_S
            else:
                retry_s = None
                self.on_push(stage, target, num_bytes)
            self._pushed[stage, target] = _Pushed(claims.epoch, claims.num_steps, trio.current_time(), retry_s)

    async def _push_to(self, target: PeerId, state: SignedState) -> int:
        """Bring a custodian what it lacks of a state; return how many bytes that was."""
        sent = 0
        for index in await self._offer(target, state):
            put = PutRequest(manifest=state.listing.name, index=index)
            chunk = state.chunk(index)
            began_s = trio.current_time()
            with trio.fail_after(CHUNK_PATIENCE_S):
                await self.streams.call(target, CUSTODY, Request(put.to_fields(), chunk))
            sent += len(chunk)
            self.pushed_bytes += len(chunk)
            await trio.sleep(min(MAX_REST_S, (trio.current_time() - began_s) * (1 / LINK_SHARE - 1)))
        if sent and (missing := await self._offer(target, state)):
            raise PeerUnavailableError(f"expected {target} to have all chunks, got {len(missing)} missing")
        return sent

    async def _offer(self, target: PeerId, state: SignedState) -> Sequence[int]:
        request = PushRequest(manifest=state.listing.manifest.envelope_bytes)
        with trio.fail_after(CHUNK_PATIENCE_S):
            response = await self.streams.call(
                target, CUSTODY, Request(request.to_fields(), state.listing.packed_digests)
            )
        with self.streams.ledger.charging(target):
            Wanted.from_fields(response.header)
            return open_indices(response.payload, len(state.listing.digests))
