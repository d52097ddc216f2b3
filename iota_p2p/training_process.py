"""Training inside a peer's process: from a run's spec to a trainer at work, and what is told of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
from iota_p2p.run.exchange import serve_run
from iota_p2p.run.run_files import SHARDS_NAME
from iota_p2p.run.shard_fetch import ShardProgress, fetch_shards
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunSpec
from iota_p2p.training.lane import Priority, ThreadLane
from iota_p2p.training.speed import measure_speed
from iota_p2p.training.state_files import StateFiles
from iota_p2p.training.trainer import Trainer, TrainerConfig, open_trainer
from iota_p2p.validation.rules import scoring_rules
from iota_p2p.validation.validation import ValidationConfig, open_validation
from iota_p2p.validation.validator import Validator
from iota_p2p.voice import Voice
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.scoring.fast_checks import PPM
from iota_p2p_protocols.scoring.replay_draw import Pair
from iota_p2p_protocols.scoring.replay_verdict import Verdict
from iota_p2p_protocols.scoring.result import CertifiedResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord

STATUS_EVERY_S = 1.0


async def _stay_honest(_peer: Peer, _trainer: Trainer) -> None:
    await trio.lowlevel.checkpoint()


@dataclass(slots=True)
class TrainingProcess:
    """One peer's part in a run, from fetching its data on.

    Attributes:
        peer: the running peer.
        spec: the run.
        home: where shards and states are kept.
        voice: tells the user.
        epoch: in which the network is, as far as the peer that gave us the spec knew.
        memory_bytes: what we give to the run.
        validates: whether we offer ourselves as a validator, where the run has any.
        kept_bytes: of our disk, for states of stages that others train.
        validator: how it validates; a testnet's lying ones do it otherwise.
        twist: changes a part of every trainer, so that a testnet's bad peers are honest ones in all the rest.
    """

    peer: Peer
    spec: RunSpec
    home: Path
    voice: Voice
    epoch: int
    memory_bytes: int
    validates: bool = False
    kept_bytes: int = KEPT_BYTES
    validator: ClassVar[type[Validator]] = Validator
    twist: ClassVar[Callable[[Peer, Trainer], Awaitable[None]]] = _stay_honest
    _trainer: Trainer | None = None
    _told_s: float = 0.0

    async def run(self) -> None:
        """Serve the run to others, fetch its data, and train until cancelled."""
        store = ShardStore(self.home / SHARDS_NAME)
        streams = self.peer.network.streams
        await serve_run(streams, self.spec, store, self._epoch_now)
        await fetch_shards(streams, self._sources, self.spec, store, self._report_shards)
        lane = ThreadLane()
        device = best_device()
        speed = await lane.run(Priority.BACKGROUND, partial(measure_speed, self.spec, device))
        self.voice.say("speed", f"speed    {speed:,} tokens/s a stage on {device}", tokens_per_s=speed, device=device)
        config = TrainerConfig(
            store=store,
            files=StateFiles(self.home / "state", self.spec.run_id),
            lane=lane,
            tokens_per_s=speed,
            memory_bytes=self.memory_bytes,
            kept_bytes=self.kept_bytes,
            device=device,
            epoch=self.epoch,
        )
        async with open_trainer(self.peer, self.spec, config) as trainer:
            self._trainer = trainer
            await type(self).twist(self.peer, trainer)
            trainer.keeper.on_change = self._report_stage
            trainer.custody.recovery.on_recovered = self._report_recovery
            if trainer.merger is not None:
                trainer.merger.on_merged = self._report_merge
            async with self._validating(trainer):
                await self._report_status(trainer)

    async def _report_status(self, trainer: Trainer) -> None:
        while True:
            await trio.sleep(STATUS_EVERY_S)
            status = status_of(self.peer, trainer)
            self.voice.say("status", _in_words(status), **status)

    @asynccontextmanager
    async def _validating(self, trainer: Trainer) -> AsyncIterator[None]:
        """Take part in scoring, if the run has any."""
        if self.spec.validation is None:
            yield
            return
        with open_ledger(self.home / LEDGER_NAME) as ledger:
            config = ValidationConfig(
                rules=scoring_rules(self.spec.validation, trainer.figures),
                ledger=ledger,
                step_s=self.spec.validation.step_ms / 1000,
                stake=int(self.validates),
                replay_ppm=self.spec.validation.replay_ppm,
                from_start=self.epoch == 0,
                software=SOFTWARE,
                kind=type(self).validator,
            )
            async with open_validation(self.peer, trainer.share, config) as validation:
                validation.validator.on_record = self._report_scores
                validation.validator.on_result = self._report_result
                if trainer.merger is not None:
                    trainer.merger.on_fault = validation.docket.file
                validation.validator.on_replay = self._report_replay
                yield

    def _epoch_now(self) -> int:
        return self.epoch if self._trainer is None else self._trainer.share.epoch

    def _sources(self) -> Sequence[PeerId]:
        return [peer_id for peer_id in self.peer.view.live() if peer_id != self.peer.identity.peer_id]

    def _report_shards(self, progress: ShardProgress) -> None:
        """Tell the first, the last, and one a second in between."""
        now_s = trio.current_time()
        if 1 < progress.num_present < progress.num_shards and now_s < self._told_s + 1:
            return
        self._told_s = now_s
        text = f"data     {progress.num_present} of {progress.num_shards} shards"
        self.voice.say("data", text, num_present=progress.num_present, num_shards=progress.num_shards)

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
            bytes_up=record.bytes_up,
            bytes_formula=record.bytes_formula,
            matrix=record.matrix,
        )

    def _report_scores(self, record: ScoreRecord) -> None:
        scores = {row.peer_id: row.score.score for row in record.rows}
        faulted = {
            row.peer_id: row.score.reason
            for row in record.rows
            if row.findings.work and 2 * row.score.quality_ppm < PPM
        }
        text = f"scores   epoch {record.epoch}: {len(scores)} peers scored, {len(faulted)} at less than half"
        self.voice.say("scores", text, epoch=record.epoch, scores=scores, flagged=faulted)

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
        "run_id": share.spec.run_id.hex(),
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
    }


def _in_words(status: dict[str, Any]) -> str:
    stages = " ".join(str(row["stage"]) if row["serving"] else f"({row['stage']})" for row in status["stages"]) or "-"
    loss = "-" if status["loss_nats"] is None else f"{status['loss_nats']:.3f}"
    waiting = f", waiting for {status['waiting_for']}" if status["waiting_for"] else ""
    return (
        f"epoch {status['epoch']}  stages {stages}  {status['tokens']:,} tokens  loss {loss}  "
        f"{status['live']} peers{waiting}"
    )
