"""Bounds, epochs, and stages changing hands."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import trio
from trio.testing import MockClock

from iota_p2p.network.streams import Request, Response
from iota_p2p.peer import Peer
from iota_p2p.training.source import Done
from iota_p2p.training.stage_worker import SLOTS_PER_STAGE
from iota_p2p.training.trainer import Trainer
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import ACTIVATION, STATE
from iota_p2p_protocols.loss_record import LossRecord
from iota_p2p_testnet.training_swarm import Costs, TrainingSwarm, open_training_swarm, small_run
from tests.sim.training_swarms import SLOW, drained, noting_losses, offences, total


async def two_dozen_at_once(_: Peer, trainer: Trainer) -> None:
    trainer.source.in_flight = 24


async def test_stages__of_one_peer_share_its_slots_without_deadlock(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One peer holds stages 0, 1 and 3, another 2: three times as many in flight as slots, and 2 is slow."""
    spec = small_run(tmp_path, num_stages=4)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        both = await swarm.start(0, pinned=(0, 1, 3), costs=SLOW, twist=two_dozen_at_once)
        other = await swarm.start(1, pinned=(2,), costs=Costs(0.1, 0.2))
        most = 0
        while total(swarm, "completed") < 30:
            await trio.sleep(0.1)
            for member in (both, other):
                most = max(most, *(member.trainer.worker.under_way_on(stage) for stage in (1, 2, 3)))
        assert most == SLOTS_PER_STAGE
        assert total(swarm, "retried") > 0
        await drained(swarm)
        assert total(swarm, "lost") == 0
        assert offences(swarm) == {}


async def test_bytes__count_what_travels_and_nothing_else(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Of three stages at two peers only one boundary is between them; a lone peer sends nothing."""
    spec = small_run(tmp_path, num_stages=3)
    num_tokens = spec.epoch.microbatch_size * spec.model.sequence_length
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        source = await swarm.start(0, pinned=(0, 1), costs=SLOW)
        tail = await swarm.start(1, pinned=(2,), costs=SLOW)
        await swarm.until(lambda: total(swarm, "completed") > 10)
        await drained(swarm)
        done = source.trainer.share.counts.completed
        figures = source.trainer.figures
        assert total(swarm, "retried") == 0
        assert source.trainer.share.counts.activation_bytes == done * num_tokens * figures.forward_bytes
        assert tail.trainer.share.counts.gradient_bytes == done * num_tokens * figures.backward_bytes
        assert source.trainer.share.counts.gradient_bytes == tail.trainer.share.counts.activation_bytes == 0


async def test_busy__leads_to_another_replica(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Two equal offers, of which one is ten times slower than it says: the other one does most of the work."""
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        await swarm.start(0, pinned=(0,), costs=Costs(0.002, 0.004), twist=two_dozen_at_once)
        slow = await swarm.start(1, pinned=(1,), costs=Costs(0.2, 0.4))
        fast = await swarm.start(2, pinned=(1,), costs=SLOW)
        await swarm.until(lambda: len(swarm.holders(1)) == 2)
        await swarm.until(lambda: total(swarm, "completed") > 60)
        done = [member.trainer.share.stages[1].num_backwards for member in (slow, fast)]
        assert done[1] > 3 * done[0] > 0
        assert total(swarm, "lost") == 0


async def test_tail__signs_one_loss_of_a_chain_when_its_caller_gives_up_and_asks_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Weights change between two attempts: a second record of one chain would say that the tail contradicts itself."""
    spec = small_run(tmp_path)
    records: list[LossRecord] = []
    given_up: list[Request] = []

    async def ask_twice(peer: Peer, trainer: Trainer) -> None:
        async def answer(caller: PeerId, request: Request) -> Response:
            with trio.move_on_after(0.05):  # most have been forward by then, and not back
                return await trainer.worker.answer(caller, request)
            given_up.append(request)
            return await trainer.worker.answer(caller, request)

        trainer.share.witness = lambda record, _role: records.append(record.payload)
        await peer.network.streams.serve(ACTIVATION, answer)

    async with open_training_swarm(1, spec, tmp_path) as swarm:
        await swarm.start(0, pinned=(0,), costs=SLOW)
        await swarm.start(1, pinned=(1,), costs=SLOW, twist=ask_twice)
        await swarm.until(lambda: len(given_up) > 10 and total(swarm, "completed") > 20)
        assert offences(swarm) == {}
    assert len(records) == len({record.chain for record in records}) > 20


def epochs(swarm: TrainingSwarm) -> list[int]:
    return [member.trainer.share.epoch for member in swarm.members.values()]


async def test_epochs__turn_over_everywhere_and_laggards_follow(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One peer is cut off for several epochs and catches up."""
    spec = small_run(tmp_path, target_microbatches=30)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(number, pinned=(0, 1), costs=SLOW) for number in range(3)]
        await swarm.until(lambda: min(epochs(swarm)) == 1)
        ids = [member.peer.identity.peer_id for member in members]
        swarm.swarm.network.block(ids[:1], ids[1:])
        swarm.swarm.network.block(ids[1:], ids[:1])
        members[0].trainer.source.paused = True
        await swarm.until(lambda: min(epochs(swarm)[1:]) == 4)
        assert epochs(swarm)[0] < 3
        swarm.swarm.network.heal()
        await swarm.until(lambda: max(epochs(swarm)) - min(epochs(swarm)) <= 1, 120)
        assert offences(swarm) == {}


async def boast(_: Peer, trainer: Trainer) -> None:
    for epoch in range(100):
        trainer.source.done[epoch] = Done(1 << 20, 0)


async def test_boast__closes_epochs_early_and_does_nothing_worse(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A source that claims a million microbatches: the other's still all come home."""
    spec = small_run(tmp_path, target_microbatches=50)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        honest = await swarm.start(0, pinned=(0, 1), costs=SLOW)
        await swarm.start(1, pinned=(0, 1), costs=SLOW, twist=boast)
        with noting_losses(honest) as losses:
            await swarm.until(lambda: min(epochs(swarm)) >= 3)
        assert len([epoch for epoch, *_ in losses if epoch == 1]) >= 50 // 5 - 2
        await drained(swarm)
        assert honest.trainer.share.counts.lost == 0


async def test_restart__in_the_same_epoch_repeats_no_microbatch(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A source that comes back after kill -9 is not taken for a replayer."""
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        source = await swarm.start(0, pinned=(0,), costs=SLOW)
        await swarm.start(1, pinned=(1,), costs=SLOW)
        await swarm.until(lambda: source.trainer.share.counts.completed > 10)
        swarm.crash(source)
        await trio.sleep(1)
        again = await swarm.start(0, pinned=(0,), costs=SLOW)
        await swarm.until(lambda: again.trainer.share.counts.completed > 10)
        assert again.trainer.share.counts.lost == 0
        assert offences(swarm) == {}


async def test_stage__not_started_anew_beside_a_replica_that_will_not_send_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Initial weights next to trained ones would undo training; the joiner asks until it gets them."""
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        first = await swarm.start(0, pinned=(0, 1), costs=SLOW)
        await swarm.until(lambda: first.trainer.share.counts.completed > 10)
        server = first.trainer.custody.server
        willing = False

        async def answer(caller: PeerId, request: Request) -> Response:
            if not willing:
                raise RefusedError("busy", "expected another time")
            return await server.answer(caller, request)

        await first.peer.network.streams.serve(STATE, answer)
        joiner = await swarm.start(1, pinned=(1,), costs=SLOW)
        await trio.sleep(6)
        assert not joiner.trainer.share.stages
        willing = True
        await swarm.until(lambda: bool(joiner.trainer.share.stages))
        assert joiner.trainer.share.stages[1].compute.num_steps > 10


async def test_stage__kept_when_the_only_other_holder_dies_during_the_hand_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        first = await swarm.start(0, pinned=(0, 1), costs=SLOW)
        other = await swarm.start(1, pinned=(1,), costs=SLOW)
        await swarm.until(lambda: len(swarm.holders(1)) == 2)
        with trio.CancelScope():
            swarm.crash(other)
            async with trio.open_nursery() as nursery:
                first.trainer.source.paused = True
                first.trainer.worker._under_way[1] += 1  # something that takes until the death is known
                nursery.start_soon(first.trainer.keeper._let_go, 1)
                await trio.sleep(20)
                first.trainer.worker._under_way[1] -= 1
        assert first.trainer.share.stages.keys() == {0, 1}
        assert not first.trainer.share.leaving


async def test_leaving__saves_the_stage_and_a_restart_goes_on_from_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        only = await swarm.start(0, pinned=(0, 1), costs=SLOW)
        await swarm.until(lambda: only.trainer.share.counts.completed > 10)
        stage = only.trainer.share.stages[1]
        await swarm.stop(only)
        steps = stage.compute.num_steps
        again = await swarm.start(0, pinned=(0, 1), costs=SLOW)
        again.trainer.source.paused = True
        await swarm.until(lambda: swarm.all_served)
        assert again.trainer.share.stages[1].compute.num_steps == steps > 10
        assert again.trainer.share.stages[1].compute.checkpoint() == stage.compute.checkpoint()
