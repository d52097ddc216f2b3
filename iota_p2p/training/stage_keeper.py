"""The stage keeper: holds the stages that `choose_stages` says, fetching and letting go as the swarm changes.

A stage is taken in this order: promised in our advert (0 tokens/s), its state fetched from peers that serve it, or
recovered from whoever kept it, or drawn from the run's seed if nobody has any; then served. It is let go in the reverse
order: out of the advert, so that no new work comes, then held until the work under way is done.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import trio

from iota_p2p.custody.recovery import Recovery
from iota_p2p.membership.membership import Membership
from iota_p2p.merge.outer_step import Vector
from iota_p2p.model.compute import StageCompute
from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.lane import Priority
from iota_p2p.training.stage_state import StageState, velocity_in
from iota_p2p.training.stage_worker import StageWorker
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.advert import StageOffer
from iota_p2p_protocols.rebalance import Candidate, Held, StageNeeds, Stages, SwarmView
from iota_p2p_protocols.selection import candidate_of, choose_stages
from iota_p2p_protocols.selection_plan import Choice, name_stages

# How often we look; steps happen once in `selection.ROUND_S` but arrivals and emergencies at once.
LOOK_EVERY_S = 1.0
# Peers that start together meet within this time; who chose before would take everything and hand it over again.
SETTLE_S = 2.0
# Where every stage is served already, adverts of others that join now are worth no more than this: gossip takes less.
SETTLE_SERVED_S = 0.3
# How long work under way may take to finish before a stage is let go regardless.
DRAIN_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class StageKeeper:
    """Takes and lets go stages.

    Attributes:
        membership: what we believe of others, and our advert.
        share: the stages we hold.
        worker: what is under way on them.
        needs: of each stage.
        recovery: brings back what nobody serves, and fetches what somebody does.
        tokens_per_s: our measured speed on a stage of cost 1.
        memory_bytes: what we give to the run.
        rng: from whom a state is fetched.
        device: torch's name of it.
        pinned: stages to hold whatever the others do; None chooses.
        kind: what does the work of the stages we take; a testnet's bad peers have another.
        on_change: told in words when a stage was taken or let go.
        reason: why we hold what we hold, for people.
    """

    membership: Membership
    share: WorkShare
    worker: StageWorker
    needs: tuple[StageNeeds, ...]
    recovery: Recovery
    tokens_per_s: int
    memory_bytes: int
    rng: Random
    device: str = "cpu"
    pinned: Stages | None = None
    kind: type[HeldStage] = HeldStage
    on_change: Callable[[str], None] = lambda _: None
    reason: str = ""
    _since_s: dict[int, float] = field(default_factory=dict)
    _first_seen_s: dict[tuple[PeerId, int], float] = field(default_factory=dict)

    async def run(self) -> None:
        """Keep choosing until cancelled."""
        self._advertise()
        await trio.sleep(SETTLE_SERVED_S if all(map(self._others_serving, range(len(self.needs)))) else SETTLE_S)
        while True:
            choice = self._choose()
            if choice.reason != self.reason:
                self.reason = choice.reason
                _log.info("stages chosen", extra={"stages": choice.stages, "reason": choice.reason})
            await self._become(choice)
            await trio.sleep(LOOK_EVERY_S)

    def _choose(self) -> Choice:
        if self.pinned is not None:
            return Choice(self.pinned, "keep", f"keep {name_stages(self.pinned)}: pinned")
        view, me = self.membership.member.view, self.share.identity.peer_id
        now_s = self.membership.member.clock()
        others = []
        for peer_id in view.live():
            advert = view.advert_of(peer_id)
            if advert is not None and peer_id != me:
                seen = {
                    offer.stage: self._first_seen_s.setdefault((peer_id, offer.stage), now_s) for offer in advert.stages
                }
                others.append(candidate_of(peer_id, advert, seen))
        self._forget_unseen({(peer.peer_id, held.stage) for peer in others for held in peer.held})
        return choose_stages(SwarmView(self.needs, tuple(others)), self._myself(), now_s)

    def _forget_unseen(self, offered: set[tuple[PeerId, int]]) -> None:
        self._first_seen_s = {key: seen_s for key, seen_s in self._first_seen_s.items() if key in offered}

    def _myself(self) -> Candidate:
        held = tuple(
            Held(stage=stage, since_s=since_s, serving=stage in self.share.stages)
            for stage, since_s in sorted(self._since_s.items())
        )
        return Candidate(
            peer_id=self.share.identity.peer_id,
            tokens_per_s=self.tokens_per_s,
            memory_bytes=self.memory_bytes,
            held=held,
        )

    async def _become(self, choice: Choice) -> None:
        """Take what is new first, then let go what is no longer wanted, so that a moving peer leaves no gap."""
        now_s = self.membership.member.clock()
        for stage in choice.stages:
            self._since_s.setdefault(stage, now_s)
        if set(choice.stages) - self.share.stages.keys():
            self._advertise()  # the promise
        for stage in choice.stages:
            if stage not in self.share.stages:
                await self._take(stage)
        unwanted = set(self._since_s) - set(choice.stages)
        for stage in sorted(unwanted):
            await self._let_go(stage)

    async def _take(self, stage: int) -> None:
        sources = self._others_serving(stage)
        found = await self._compute_of(stage, sources)
        if found is None:
            return
        compute, velocity_W = found
        held = self.kind(self.share.spec, stage, self.share.data, compute)
        held.on_begun = lambda begun: self.share.work_begun(begun)  # noqa: PLW0108 - it may be set later
        held.on_closed = lambda closed: self.share.work_closed(closed)  # noqa: PLW0108 - likewise
        held.on_stepped = lambda stepped: self.share.work_stepped(stepped)  # noqa: PLW0108 - likewise
        held.begin(self.share.epoch, settled=not sources, velocity_W=velocity_W)
        self.share.stages[stage] = held
        self._advertise()
        self.on_change(f"holds stage {stage}: {self.reason}")

    async def _compute_of(self, stage: int, sources: list[PeerId]) -> tuple[StageCompute, Vector | None] | None:
        """Return the stage with the best state there is: a replica's, one that was kept, or the initial one.

        With it comes the outer momentum's memory, if the state has one. None if it is served and nobody would send it
        now: an old state beside trained ones does harm.
        """
        state = await self._fetched(stage, sources) if sources else await self.recovery.state_of(stage)
        if sources and state is None:
            return None
        build = partial(StageCompute, self.share.spec, stage, seed=self.share.spec.seed, device=self.device)
        compute = await self.share.lane.run(Priority.BACKGROUND, build)
        if state is None:
            return compute, None
        await self.share.lane.run(Priority.BACKGROUND, partial(compute.restore, state.checkpoint))
        return compute, await self.share.lane.beside(partial(velocity_in, state))

    def _others_serving(self, stage: int) -> list[PeerId]:
        return sorted(set(self.share.routes.replicas(stage)) - {self.share.identity.peer_id})

    async def _fetched(self, stage: int, sources: list[PeerId]) -> StageState | None:
        self.rng.shuffle(sources)  # joiners come in crowds: not all of them to the same holder
        try:
            return await self.recovery.fetching(stage).run(sources, self.recovery.custodians_of(stage, sources))
        except PeerUnavailableError as error:
            _log.warning("stage state not fetched", extra={"stage": stage, "reason": str(error)})
            return None

    async def _let_go(self, stage: int) -> None:
        """Let a stage go, unless nobody else is left who serves it: they may have died, or gone the same moment."""
        since_s = self._since_s.pop(stage)
        self.share.leaving.add(stage)
        self._advertise()
        with trio.move_on_after(DRAIN_S):
            while self.worker.under_way_on(stage):  # noqa: ASYNC110 - at most DRAIN_S, and seldom
                await trio.sleep(LOOK_EVERY_S / 10)
        self.share.leaving.remove(stage)
        if stage in self.share.stages and not self._others_serving(stage):
            self._since_s[stage] = since_s
            self._advertise()
            return
        held = self.share.stages.pop(stage, None)
        if held is not None:
            await self.share.lane.run(Priority.BACKWARD, held.close_epoch)
        self.on_change(f"let stage {stage} go: {self.reason}")

    def _advertise(self) -> None:
        announcer = self.membership.announcer
        offers = tuple(
            StageOffer(stage=stage, tokens_per_s=self.tokens_per_s if stage in self.share.stages else 0)
            for stage in sorted(self._since_s)
        )
        capacity = announcer.description.capacity.model_copy(
            update={"tokens_per_s": self.tokens_per_s, "memory_bytes": self.memory_bytes}
        )
        announcer.describe(replace(announcer.description, stages=offers, capacity=capacity))
