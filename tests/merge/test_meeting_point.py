"""Replicas that no advert has told of each other meet by the DHT, and strangers there gain nothing."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from iota_p2p.merge.base_fetch import BaseFetch
from iota_p2p.merge.meeting_point import MIN_FOUND, MeetingPoint
from iota_p2p.merge.memory import KnownBase, MergeMemory
from iota_p2p.merge.merge_server import MergeServer
from iota_p2p.merge.outer_step import OuterState
from iota_p2p.merge.record import MergeRecord
from iota_p2p.network.rendezvous import Rendezvous
from iota_p2p.peer import Peer
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.routes import Routes
from iota_p2p.training.trainer import Trainer
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import meeting_purpose
from iota_p2p_protocols.butterfly.exchange import Note
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import MERGE
from iota_p2p_testnet.training_swarm import TrainingSwarm, open_training_swarm, small_run
from tests.merge.merging_nodes import RUN_ID, MergingNode, merging_nodes
from tests.merge.test_merging_swarm import epochs_of
from tests.sim.training_swarms import SLOW

STAGE, W = 1, 100
# What a meeting waits for somebody who does not come (2 s), and its round trips.
PATIENCE_S = 3.0


def point_of(node: MergingNode, view: tuple[PeerId, ...] = ()) -> MeetingPoint:
    """Return a replica's meeting point; `view` are the replicas that its view has."""
    fetch = BaseFetch(node.means, STAGE, W, velocity=False)
    return MeetingPoint(Rendezvous(node.host, RUN_ID), node.means.identity.peer_id, STAGE, lambda: view, fetch.ask)


def hold(node: MergingNode, epoch: int, num_values: int = W) -> None:
    """Let a node answer for the stage."""
    node.memory.bases[STAGE] = KnownBase.of(OuterState(np.zeros(num_values, dtype=np.float32)), epoch)


async def test_point__finds_whoever_answers_for_the_stage(autojump_clock: MockClock) -> None:
    """Of five who provide two hold the stage; the view has one of them already."""
    async with merging_nodes(6) as (_, nodes), trio.open_nursery() as nursery:
        hold(nodes[1], 7)
        hold(nodes[2], 8)  # has merged already
        hold(nodes[3], 4)  # in another epoch
        hold(nodes[4], 7, num_values=W + 1)  # another size
        for node in nodes[1:]:  # and the last one holds nothing
            point_of(node).attend(7, nursery)
        me, one, other, *_ = (node.means.identity.peer_id for node in nodes)
        point = point_of(nodes[0], (me, one))
        point.attend(7, nursery)
        await trio.sleep(3)
        assert point.others() == sorted([one, other])
        assert point.vouched() == [one]
        point.met([me, one, other])
        assert point.vouched() == sorted([one, other])
        nursery.cancel_scope.cancel()


async def test_strangers__are_few_and_not_waited_for_again(autojump_clock: MockClock) -> None:
    """Ten who provide, answer for the stage and never contribute."""
    async with merging_nodes(11) as (_, nodes), trio.open_nursery() as nursery:
        for node in nodes[1:]:
            hold(node, 0)
            point_of(node).attend(0, nursery)
        point = point_of(nodes[0])
        me, late = nodes[0].means.identity.peer_id, nodes[1].means.identity.peer_id
        await trio.sleep(3)
        seen: set[PeerId] = set()
        for _ in range(4):
            await point.look(0)
            assert len(point.others()) <= MIN_FOUND
            assert point.vouched() == []
            assert not seen & set(point.others())
            seen |= set(point.others())
            point.met([me])
        assert len(seen) == 10
        point.met([me, late])  # it contributed after all, as any stranger may
        await point.look(0)
        assert late in point.others()
        nursery.cancel_scope.cancel()


class _Blind(Routes):
    """Routes that show no replica of the last stage: as if no advert of one had come."""

    def replicas(self, stage: int) -> Mapping[PeerId, int]:
        """See `Routes.replicas`."""
        return {} if stage == STAGE else super().replicas(stage)


async def _see_nobody(peer: Peer, trainer: Trainer) -> None:
    """Twist: know of no replica of the last stage."""
    trainer.share.routes = _Blind(peer.view)
    await trio.lowlevel.checkpoint()


async def start_blind(swarm: TrainingSwarm, records: list[tuple[int, MergeRecord]]) -> None:
    """Start a source and two replicas of the last stage that do not know of each other."""
    for number in range(3):
        twist = _see_nobody if number else None
        member = await swarm.start(number, pinned=(min(number, 1),), costs=SLOW, twist=twist)
        assert member.trainer.merger is not None
        member.trainer.merger.on_merged = partial(_note, records, number)


def _note(records: list[tuple[int, MergeRecord]], number: int, record: MergeRecord) -> None:
    if number:
        records.append((number, record))


async def test_replicas__that_know_nothing_of_each_other_merge_all_the_same(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Neither has an advert of the other; both end each epoch but perhaps the first with the same bytes, merged."""
    spec = small_run(tmp_path, num_stages=2, merge=MergeSpec(), target_microbatches=40)
    records: list[tuple[int, MergeRecord]] = []
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        await start_blind(swarm, records)
        await epochs_of(swarm, 5)
    for epoch in (2, 3, 4):
        both = [record for _, record in records if record.epoch == epoch]
        assert [(record.how, len(record.members)) for record in both] == [("merged", 2)] * 2
        assert len({record.theta_digest for record in both}) == 1


@pytest.mark.slow
async def test_stranger__that_only_provides_costs_one_merge_its_patience(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It answers for the stage, and says that it is through with every merge; the two replicas go on merging."""
    spec = small_run(tmp_path, num_stages=2, merge=MergeSpec(), target_microbatches=40)
    records: list[tuple[int, MergeRecord]] = []

    def refuse(_: PeerId, note: Note) -> None:
        raise RefusedError("merged", f"expected a later epoch, got {note.epoch}")

    async with open_training_swarm(1, spec, tmp_path) as swarm, trio.open_nursery() as nursery:
        await start_blind(swarm, records)
        merger = list(swarm.members.values())[1].trainer.merger
        assert merger is not None
        network = (await swarm.swarm.start(9, tuple(swarm.members))).network
        await network.streams.serve(MERGE, MergeServer(MergeMemory(bases=merger.memory.bases), refuse).answer)
        for epoch in range(6):
            nursery.start_soon(_provide, network.rendezvous, epoch)
        await epochs_of(swarm, 5)
        nursery.cancel_scope.cancel()
    slow = [record for _, record in records if record.seconds > 1]
    assert all(record.seconds < PATIENCE_S for record in slow)
    assert len(slow) <= 2
    for epoch in (3, 4):
        both = [record for _, record in records if record.epoch == epoch]
        assert [(record.how, len(record.members)) for record in both] == [("merged", 2)] * 2


async def _provide(rendezvous: Rendezvous, epoch: int) -> None:
    async with rendezvous.provided(meeting_purpose(STAGE), epoch):
        await trio.sleep_forever()
