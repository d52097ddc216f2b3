"""Training inside a peer's process: from a run's spec and data to a trainer at work, and what is told of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import trio

from iota_p2p.custody.custody import KEPT_BYTES
from iota_p2p.custody.recovery import Recovered
from iota_p2p.ledger.ledger import FILE_NAME as LEDGER_NAME
from iota_p2p.ledger.ledger import open_ledger
from iota_p2p.membership.announcer import SOFTWARE
from iota_p2p.merge.record import MergeRecord
from iota_p2p.peer import Peer
from iota_p2p.run.run_files import STATES_NAME
from iota_p2p.run_supply import RunSupply
from iota_p2p.training.lane import Priority, ThreadLane
from iota_p2p.training.speed import measure_speed
from iota_p2p.training.state_files import StateFiles
from iota_p2p.training.trainer import Trainer, TrainerConfig, open_trainer
from iota_p2p.validation.rules import scoring_rules
from iota_p2p.validation.validation import ValidationConfig, open_validation
from iota_p2p.validation.validator import Validator
from iota_p2p.voice import Voice
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.replay_draw import Pair
from iota_p2p_protocols.scoring.replay_verdict import Verdict
from iota_p2p_protocols.scoring.result import CertifiedResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord

STATUS_EVERY_S = 1.0
FIRST_WORK_EVERY_S = 0.05  # looks for the first microbatch, a small part of the seconds that a start takes


async def _stay_honest(_peer: Peer, _trainer: Trainer) -> None:
    await trio.lowlevel.checkpoint()


@dataclass(slots=True)
class TrainingProcess:
    """One peer's part in a run, once its data is here.

    Attributes:
        supply: the run and its data.
        home: where states are kept.
        epoch: in which the network is, as far as the peer that gave us the spec knew.
        memory_bytes: what we give to the run.
        validates: whether we offer ourselves as a validator, where the run has any.
        kept_bytes: of our disk, for states of stages that others train.
        validator: how it validates; a testnet's lying ones do it otherwise.
        twist: changes a part of every trainer, so that a testnet's bad peers are honest ones in all the rest.
    """

    supply: RunSupply
    home: Path
    epoch: int
    memory_bytes: int
    validates: bool = False
    kept_bytes: int = KEPT_BYTES
    validator: ClassVar[type[Validator]] = Validator
    twist: ClassVar[Callable[[Peer, Trainer], Awaitable[None]]] = _stay_honest

    @property
    def voice(self) -> Voice:
        """What tells the user."""
        return self.supply.voice

    async def run(self) -> None:
        """Train until cancelled."""
        peer, spec = self.supply.peer, self.supply.spec
        lane = ThreadLane()
        device = best_device()
        speed = await lane.run(Priority.BACKGROUND, partial(measure_speed, spec, device))
        self.voice.say("speed", f"speed    {speed:,} tokens/s a stage on {device}", tokens_per_s=speed, device=device)
        config = TrainerConfig(
            store=self.supply.store,
            files=StateFiles(self.home / STATES_NAME, spec.run_id),
            lane=lane,
            tokens_per_s=speed,
            memory_bytes=self.memory_bytes,
            kept_bytes=self.kept_bytes,
            device=device,
            epoch=self.epoch,
        )
        async with open_trainer(peer, spec, config) as trainer, trio.open_nursery() as nursery:
            self.supply.epoch_of = lambda: trainer.share.epoch
            await type(self).twist(peer, trainer)
            trainer.keeper.on_change = self._report_stage
            trainer.custody.recovery.on_recovered = self._report_recovery
            if trainer.merger is not None:
                trainer.merger.on_merged = self._report_merge
            nursery.start_soon(self._report_first_work, trainer)
            async with self._validating(trainer):
                await self._report_status(trainer)

    async def _report_first_work(self, trainer: Trainer) -> None:
        """Say when the first microbatch was taken: from then on we are of use."""
        while not any(len(held.log) for held in trainer.share.stages.values()):  # noqa: ASYNC110 - seldom, and soon over
            await trio.sleep(FIRST_WORK_EVERY_S)
        self.voice.say("working", "working  on our first microbatch")

    async def _report_status(self, trainer: Trainer) -> None:
        while True:
            await trio.sleep(STATUS_EVERY_S)
            status = status_of(self.supply.peer, trainer)
            self.voice.say("status", _in_words(status), **status)

    @asynccontextmanager
    async def _validating(self, trainer: Trainer) -> AsyncIterator[None]:
        """Take part in scoring, if the run has any."""
        spec = self.supply.spec
        if spec.validation is None:
            yield
            return
        with open_ledger(self.home / LEDGER_NAME) as ledger:
            config = ValidationConfig(
                rules=scoring_rules(spec.validation, trainer.figures),
                ledger=ledger,
                step_s=spec.validation.step_ms / 1000,
                stake=int(self.validates),
                replay_ppm=spec.validation.replay_ppm,
                software=SOFTWARE,
                kind=type(self).validator,
            )
            async with open_validation(self.supply.peer, trainer.share, config) as validation:
                validation.validator.on_record = self._report_scores
                validation.validator.on_result = self._report_result
                if trainer.merger is not None:
                    trainer.merger.on_fault = validation.docket.file
                validation.validator.on_replay = self._report_replay
                yield

    def _report_stage(self, what: str) -> None:
        self.voice.say("stage", f"stage    {what}", what=what)

    def _report_merge(self, record: MergeRecord) -> None:
        ended, others = record.epoch - 1, f" with {len(record.members)} members" if record.members else ""
        text = f"merge    stage {record.stage} goes on to epoch {record.epoch}: {record.how}{others}"
        self.voice.say(
            "merged",
            text,
            epoch=ended,
            stage=record.stage,
            how=record.how,
            digest=record.theta_digest.hex(),
            seconds=round(record.seconds, 4),
            members=record.members,
            shards=record.shards,
            lost_shards=record.lost_shards,
            faults=len(record.faults),
            named=record.named,
            passed_over=record.passed_over,
            bytes_up=record.bytes_up,
            bytes_formula=record.bytes_formula,
            matrix=record.matrix,
        )

    def _report_scores(self, record: ScoreRecord) -> None:
        scores = {row.peer_id: row.score.score for row in record.rows}
        work = {row.peer_id: row.findings.work for row in record.rows}
        faulted = {
            row.peer_id: row.score.reason
            for row in record.rows
            if row.findings.work and 2 * row.score.quality_ppm < PPM
        }
        text = f"scores   epoch {record.epoch}: {len(scores)} peers scored, {len(faulted)} at less than half"
        self.voice.say("scores", text, epoch=record.epoch, scores=scores, work=work, flagged=faulted)

    def _report_result(self, certified: CertifiedResult) -> None:
        result = certified.payload
        payouts = {peer_id: share for peer_id, _, share in result.payouts}
        text = f"result   epoch {result.epoch}: {len(certified.validators)} validators agree on {len(payouts)} payouts"
        self.voice.say(
            "result",
            text,
            epoch=result.epoch,
            validators=certified.validators,
            payouts=payouts,
            pot=result.pot,
            silent=certified.silent,
        )

    def _report_replay(self, epoch: int, pair: Pair, verdict: Verdict) -> None:
        peer_id, stage = pair
        text = f"replay   epoch {epoch}, stage {stage} of {peer_id}: {verdict.replay}, {verdict.reason}"
        self.voice.say(
            "replay",
            text,
            epoch=epoch,
            peer=peer_id,
            stage=stage,
            verdict=verdict.replay,
            reason=verdict.reason,
            findings=dict(verdict.findings),
        )

    def _report_recovery(self, recovered: Recovered) -> None:
        text = f"stage    recovered stage {recovered.stage} from {recovered.kind} at step {recovered.num_steps}"
        self.voice.say("recovered", text, **asdict(recovered))


def best_device() -> str:
    """Return torch's name of the best device of this machine."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def status_of(peer: Peer, trainer: Trainer) -> dict[str, Any]:
    """Return how training stands, ready for JSON."""
    share, counts = trainer.share, trainer.share.counts
    offers = {offer.stage for offer in trainer.keeper.membership.announcer.description.stages}
    return {
        "peer_id": peer.identity.peer_id,
        "run_id": share.terms.run_id.hex(),
        "epoch": share.epoch,
        "stages": [
            {
                "stage": stage,
                "serving": stage in share.stages,
                "steps": share.stages[stage].compute.num_steps if stage in share.stages else 0,
            }
            for stage in sorted(offers | share.stages.keys())
        ],
        "tokens": counts.tokens,
        "loss_nats": counts.loss_nats,
        "val_loss_nats": trainer.evaluator.loss_nats,
        "microbatches": {
            "sent": counts.sent,
            "completed": counts.completed,
            "retried": counts.retried,
            "lost": counts.lost,
        },
        "bytes": {
            "activations": counts.activation_bytes,
            "gradients": counts.gradient_bytes,
            "control": peer.network.traffic.control_bytes,
            "custody": trainer.custody.pusher.pushed_bytes,
        },
        "boundary": {
            "name": share.spec.boundary.kind,
            "forward_ratio": round(trainer.figures.forward_ratio, 1),
            "backward_ratio": round(trainer.figures.backward_ratio, 1),
        },
        "waiting_for": share.waiting_for,
        "reason": trainer.keeper.reason,
        "live": len(peer.view.live()),
        "lane_busy_s": round(share.lane.busy_s, 3),
        "lane_cpu_s": {what: round(cpu_s, 3) for what, cpu_s in share.lane.cpu_s.items()},
        "merging_s": round(sum(held.gate.was_shut_s for held in share.stages.values()), 3),
    }


def _in_words(status: dict[str, Any]) -> str:
    stages = " ".join(str(row["stage"]) if row["serving"] else f"({row['stage']})" for row in status["stages"]) or "-"
    loss = "-" if status["loss_nats"] is None else f"{status['loss_nats']:.3f}"
    waiting = f", waiting for {status['waiting_for']}" if status["waiting_for"] else ""
    return (
        f"epoch {status['epoch']}  stages {stages}  {status['tokens']:,} tokens  loss {loss}  "
        f"{status['live']} peers{waiting}"
    )
