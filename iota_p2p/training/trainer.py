"""`Trainer`: a peer's share in a run, put together; it only composes."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil

import trio

from iota_p2p.custody.custody import KEPT_BYTES, Custody
from iota_p2p.merge.merger import Merger
from iota_p2p.merge.signed_epochs import SignedEpochs
from iota_p2p.model.run_figures import RunFigures, run_figures
from iota_p2p.peer import Peer
from iota_p2p.run.data import RunData
from iota_p2p.run.epoch_note import EpochNote
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunSpec
from iota_p2p.training.counters import Counters
from iota_p2p.training.epoch_clock import EpochClock
from iota_p2p.training.evaluator import Evaluator
from iota_p2p.training.inference import Inference
from iota_p2p.training.lane import Lane, Priority
from iota_p2p.training.pathway import Pathway
from iota_p2p.training.payload_store import PayloadStore
from iota_p2p.training.routes import Routes
from iota_p2p.training.source import Source
from iota_p2p.training.stage_keeper import StageKeeper
from iota_p2p.training.stage_state import StageState, freeze
from iota_p2p.training.stage_worker import SLOTS_PER_STAGE, StageWorker
from iota_p2p.training.state_files import StateFiles, StateNotSavedError
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.activation import ActivationTerms
from iota_p2p_protocols.errors import RemoteProtocolError
from iota_p2p_protocols.ids import ACTIVATION
from iota_p2p_protocols.rebalance import StageNeeds, Stages

SAVE_EVERY_S = 30.0
# Saving on the way out must not hold up Ctrl-C, which promises 3 s for everything.
LAST_SAVE_TIMEOUT_S = 1.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """What a peer brings to a run.

    Attributes:
        store: the run's shards, all of them.
        files: where states are saved.
        lane: its device.
        tokens_per_s: its measured speed.
        memory_bytes: what it gives.
        device: torch's name of where it computes.
        epoch: in which the network is, as far as we know.
        pinned: the stages to hold whatever the others do; None chooses them.
        kept_bytes: of our disk, for states of stages that others hold.
    """

    store: ShardStore
    files: StateFiles
    lane: Lane
    tokens_per_s: int
    memory_bytes: int
    device: str = "cpu"
    epoch: int = 0
    pinned: Stages | None = None
    kept_bytes: int = KEPT_BYTES


@dataclass(frozen=True, slots=True)
class Trainer:
    """The parts of training; open one with `open_trainer`."""

    share: WorkShare
    figures: RunFigures
    worker: StageWorker
    source: Source
    keeper: StageKeeper
    clock: EpochClock
    inference: Inference
    evaluator: Evaluator
    files: StateFiles
    custody: Custody
    merger: Merger | None

    async def turn_over(self, epoch: int) -> None:
        """Move to an epoch: every stage between two pieces of its work, or after its replicas have merged."""
        self.share.epoch = epoch
        EpochNote(self.files.folder).write(epoch)
        self.share.routes.start_epoch()
        self.share.payloads.forget_before(epoch - 1)
        self.share.returns.forget_before(epoch - 1)
        if self.merger is not None:
            self.merger.turn()
            return
        for stage in tuple(self.share.stages.values()):
            await self.share.lane.run(Priority.BACKWARD, partial(stage.start_epoch, epoch))

    async def freeze(self, stage: int) -> StageState | None:
        """Return the state of a stage we hold, as it is between two pieces of its work."""
        held = self.share.stages.get(stage)
        # Joiners wait for it and take work over from us, so it does not wait behind that work.
        return None if held is None else await self.share.lane.run(Priority.BACKWARD, partial(freeze, held))

    async def save(self) -> None:
        """Write the states of our stages to disk; a full disk is reported and training goes on."""
        for stage in tuple(self.share.stages):
            state = await self.freeze(stage)
            if state is None:
                continue
            try:
                await self.share.lane.beside(partial(self.files.save, state))
            except StateNotSavedError as error:
                _log.warning("state not saved", extra={"stage": stage, "reason": str(error)})

    async def keep_saved(self) -> None:
        """Save now and then until cancelled."""
        while True:
            await trio.sleep(SAVE_EVERY_S)
            await self.save()


@asynccontextmanager
async def open_trainer(peer: Peer, spec: RunSpec, config: TrainerConfig) -> AsyncIterator[Trainer]:
    """Take part in a run for as long as the context lasts; leaving saves our stages, if there is time."""
    trainer = _compose(peer, spec, config)
    EpochNote(config.files.folder).write(config.epoch)
    streams = peer.network.streams
    await streams.serve(ACTIVATION, trainer.worker.answer)
    await trainer.custody.serve()
    await trainer.inference.serve()
    if trainer.merger is not None:
        await trainer.merger.serve()
    trainer.share.routes.start_epoch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trainer.keeper.run)
        nursery.start_soon(trainer.source.run)
        nursery.start_soon(trainer.clock.run)
        nursery.start_soon(trainer.evaluator.run)
        nursery.start_soon(trainer.keep_saved)
        nursery.start_soon(trainer.custody.run)
        if trainer.merger is not None:
            nursery.start_soon(trainer.merger.run)
        try:
            yield trainer
        finally:
            trainer.share.draining = True
            nursery.cancel_scope.cancel()
            with trio.move_on_after(LAST_SAVE_TIMEOUT_S, shield=True):
                await trainer.save()


def _compose(peer: Peer, spec: RunSpec, config: TrainerConfig) -> Trainer:
    figures = run_figures(spec)
    member = peer.membership.member
    share = WorkShare(
        identity=peer.identity,
        spec=spec,
        terms=_terms(spec, figures),
        data=RunData(spec, config.store),
        lane=config.lane,
        routes=Routes(peer.view),
        payloads=PayloadStore(),
        epoch=config.epoch,
        clock=member.clock,
    )

    def charge(peer_id: PeerId, error: RemoteProtocolError) -> None:
        peer.network.ledger.charge(peer_id, error.rule, str(error))

    pathway = Pathway(share, peer.network.streams, member.rng("pathway"), charge)
    worker = StageWorker(share, pathway)
    pathway.local = worker.answer

    async def take(stage: int) -> StageState | None:
        return await trainer.freeze(stage)

    custody = Custody.of(member, share, config.files, take, config.kept_bytes)
    counters = Counters(config.files.folder / "counters")
    source = Source(share, worker, min(SLOTS_PER_STAGE, spec.model.num_stages + 1), counters)
    keeper = StageKeeper(
        peer.membership,
        share,
        worker,
        _needs(figures, spec.epoch.microbatches_per_step),
        custody.recovery,
        tokens_per_s=config.tokens_per_s,
        memory_bytes=config.memory_bytes,
        rng=member.rng("stage keeper"),
        device=config.device,
        pinned=config.pinned,
    )
    inference = Inference(share, peer.network.streams, member.rng("inference"), charge)

    async def turn_over(epoch: int) -> None:
        await trainer.turn_over(epoch)

    clock = EpochClock(member, share, source, turn_over)
    evaluator = Evaluator(share, inference)
    signed = SignedEpochs(config.files.folder / "signed-merges")
    merger = None if spec.merge is None else Merger(member, share, spec.merge, signed)
    trainer = Trainer(
        share, figures, worker, source, keeper, clock, inference, evaluator, config.files, custody, merger
    )
    return trainer


def _terms(spec: RunSpec, figures: RunFigures) -> ActivationTerms:
    return ActivationTerms(
        run_id=spec.run_id,
        num_stages=spec.model.num_stages,
        activation_bytes=figures.forward_bytes * figures.tokens_per_microbatch,
        gradient_bytes=figures.backward_bytes * figures.tokens_per_microbatch,
    )


def _needs(figures: RunFigures, microbatches_per_step: int) -> tuple[StageNeeds, ...]:
    """Return each stage's needs; costs are relative to stage 0, on which speeds are measured."""
    # A graph under way keeps the weights it went forward with, and every step in between leaves such a copy.
    copies = 1 + ceil(SLOTS_PER_STAGE / microbatches_per_step)
    first = figures.stages[0].figures.flops_per_token
    return tuple(
        StageNeeds(
            memory_bytes=copies * stage.figures.weight_bytes
            + stage.gradient_bytes
            + stage.optimizer_bytes
            + SLOTS_PER_STAGE * stage.activation_bytes,
            cost=stage.figures.flops_per_token / first,
        )
        for stage in figures.stages
    )
