"""`LoneStep`: a stage's way to the next epoch when nobody else is there."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import trio

from iota_p2p.merge.outer_step import OuterState, outer_step
from iota_p2p.merge.own_contribution import Origin, sign_contribution
from iota_p2p.merge.round import Means, commit
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.held_stage import EpochWork, HeldStage
from iota_p2p.training.lane import Priority
from iota_p2p.training.work_share import WorkShare
from iota_p2p_protocols.butterfly.codecs import CODECS

# Before all microbatches that wait for the lane, and after whoever freezes a state at the same moment.
FIRST = (-1,)


@dataclass(frozen=True, slots=True)
class LoneStep:
    """Goes on with our own weights; what the epoch came to is signed all the same, for whoever replays it.

    Attributes:
        means: who we are.
        share: whose lane it is, and which epoch the run is in.
        held: the stage.
        spec: how the run merges.
        nursery: in which our contribution is made, while training goes on.
        announce: gossips it.
    """

    means: Means
    share: WorkShare
    held: HeldStage
    spec: MergeSpec
    nursery: trio.Nursery
    announce: Callable[[Literal["contribution", "merge"], bytes], None]

    async def run(self) -> OuterState:
        """Return what the next epoch begins with; it is installed."""
        base = self.held.base
        origin = None if base is None else Origin.of(self.held, self.spec.codec)
        work, state = await self.share.lane.run(Priority.BACKWARD, self._step, FIRST)
        if base is not None and origin is not None and work.samples:
            self.nursery.start_soon(self._tell, origin, base, work)
        return state

    def _step(self) -> tuple[EpochWork, OuterState]:
        held, work = self.held, self.held.work()
        state = OuterState(work.theta_W, held.velocity)
        if held.base is not None and self.spec.momentum:
            state = outer_step(held.base, np.subtract(held.base.theta_W, work.theta_W), self.spec, held.epoch)
        held.install(state, max(self.share.epoch, held.epoch))
        return work, state

    async def _tell(self, origin: Origin, base: OuterState, work: EpochWork) -> None:
        gradient_W = np.subtract(base.theta_W, work.theta_W)
        if bool(np.isfinite(gradient_W).all()):
            committed = await self.means.beside(partial(commit, gradient_W, CODECS[self.spec.codec], None))
            contribution = sign_contribution(self.means, origin, work, committed)
            self.announce("contribution", contribution.envelope_bytes)
