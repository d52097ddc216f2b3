"""What the network computes is what one process computes, and can be computed again from its records."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from trio.testing import MockClock

from iota_p2p.model.compute import StageCompute
from iota_p2p.peer import Peer
from iota_p2p.run.data import RunData
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunSpec
from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.replay import replay
from iota_p2p.training.stage_state import freeze
from iota_p2p.training.trainer import Trainer
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.loss_record import loss_micronats
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.work_log import Forward, WorkLog
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from tests.sim.training_swarms import SLOW, noting_losses


@dataclass
class Beginning:
    """A stage at an epoch's first moment."""

    held: HeldStage
    epoch: int
    checkpoint: bytes
    log: WorkLog


@pytest.fixture
def beginnings(monkeypatch: pytest.MonkeyPatch) -> list[Beginning]:
    """Note every stage's state and log whenever it begins an epoch."""
    noted: list[Beginning] = []
    start = HeldStage.start_epoch

    def start_and_note(held: HeldStage, epoch: int) -> None:
        start(held, epoch)
        noted.append(Beginning(held, epoch, freeze(held).checkpoint, held.log))

    monkeypatch.setattr(HeldStage, "start_epoch", start_and_note)
    return noted


@pytest.mark.parametrize("per_step", [1, 3])
async def test_work_log__replays_to_the_same_weights(
    per_step: int, beginnings: list[Beginning], tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The last epoch and the one before, every stage, with microbatches under way at the change."""
    spec = small_run(tmp_path, num_stages=3, target_microbatches=25, microbatches_per_step=per_step)
    data = RunData(spec, ShardStore(tmp_path / "shards"))
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(stage, pinned=(stage,), costs=SLOW) for stage in range(3)]
        with noting_losses(*members) as losses:
            await swarm.until(lambda: bool(losses) and max(losses)[0] == 2 and len(losses) > 60)
        crossed = 0
        for stage, member in enumerate(members):
            assert member.trainer.share.epoch == 2
            mine = {b.epoch: b for b in beginnings if b.held is member.trainer.share.stages[stage]}
            ends = {1: mine[2].checkpoint, 2: freeze(mine[2].held).checkpoint}
            for epoch, end in ends.items():
                compute = StageCompute(spec, stage, seed=spec.seed)
                compute.restore(mine[epoch].checkpoint)
                log = WorkLog.from_bytes(mine[epoch].log.to_bytes())
                replay(compute, log, data, member.trainer.share.payloads.get)
                assert compute.checkpoint() == end
                assert end != mine[epoch].checkpoint
                crossed += sum(isinstance(e, Forward) and e.microbatch.epoch < epoch for e in log.entries)
        assert crossed  # microbatches that were under way when the epoch changed
        log = mine[2].log
        with pytest.raises(PeerUnavailableError, match="the log names"):
            replay(compute, log, data, lambda _: None)


def alone(spec: RunSpec, data: RunData, source: PeerId, count: int) -> tuple[list[int], StageCompute]:
    """Train the uncut model in this process on a source's first microbatches; return losses and the model."""
    whole = spec.model_copy(update={"model": spec.model.model_copy(update={"stage_cuts": ()})})
    compute = StageCompute(whole, 0, seed=spec.seed)
    losses = []
    for counter in range(count):
        microbatch = MicrobatchId(epoch=0, source=source, counter=counter)
        held = compute.forward(torch.from_numpy(data.training_window(microbatch)))
        assert held.loss is not None
        losses.append(loss_micronats(held.loss) or 0)
        compute.backward(held)
        compute.step(1)
    return losses, compute


async def one_at_a_time(_: Peer, trainer: Trainer) -> None:
    trainer.source.in_flight = 1


@pytest.mark.parametrize("num_stages", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
async def test_network__equals_one_process_to_the_last_bit(
    num_stages: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As many peers as stages, fp32 boundary, one microbatch at a time: same losses, weights and logits."""
    spec = small_run(tmp_path, num_stages=4, boundary="none")
    cuts = {1: (), 2: (2,), 4: (1, 2, 3)}[num_stages]
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"stage_cuts": cuts})})
    data = RunData(spec, ShardStore(tmp_path / "shards"))
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(s, pinned=(s,), costs=SLOW, twist=one_at_a_time) for s in range(num_stages)]
        source = members[0]
        with noting_losses(source) as losses:
            await swarm.until(lambda: len(losses) == 25)
        source.trainer.source.paused = True
        await swarm.until(lambda: source.trainer.share.counts.sent == len(losses))
        assert [counter for _, _, counter, _ in losses] == list(range(len(losses)))
        expected, whole = alone(spec, data, source.peer.identity.peer_id, len(losses))
        assert [loss for *_, loss in losses] == expected
        theirs = {
            name: parameter
            for stage, member in enumerate(members)
            for name, parameter in member.trainer.share.stages[stage].compute.stage.named_parameters()
        }
        ours = dict(whole.stage.named_parameters())
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)

        prompt = list(b"def main(")
        logits = await source.trainer.inference.next_logits(prompt)
        assert torch.equal(logits, whole.last_logits(torch.tensor([[*prompt, 0]])))
        heldout = whole.evaluate(torch.from_numpy(data.heldout_window(3))).loss
        assert heldout is not None
        assert await source.trainer.inference.heldout_loss(3) == (loss_micronats(heldout) or 0) / 1e6
