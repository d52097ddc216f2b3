"""Merges with real processes and real daemons: replicas stay equal, and find each other by the DHT alone."""

import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from iota_p2p.merge.base_fetch import BaseFetch
from iota_p2p.merge.encounter import Encounter, Outcome
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.meeting_point import MeetingPoint
from iota_p2p.merge.memory import KnownBase, MergeMemory
from iota_p2p.merge.merge_server import MergeServer
from iota_p2p.merge.outer_step import OuterState, Vector
from iota_p2p.merge.own_contribution import Origin, sign_contribution
from iota_p2p.merge.round import Means, commit
from iota_p2p.network.daemon import DaemonHost
from iota_p2p.network.rendezvous import Rendezvous
from iota_p2p.network.streams import open_streams
from iota_p2p.run.configs import find_config
from iota_p2p.run.corpus import files
from iota_p2p.run.founding import found_run
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.run_files import SHARDS_NAME
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import MergeSpec
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p.training.held_stage import EpochWork
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.exchange import Note
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import MERGE
from iota_p2p_testnet.testnet_home import TestnetHome, with_stages
from tests.merge.merging_nodes import RUN_ID, at_once, gradients
from tests.net.daemons import identity, open_hosts
from tests.net.test_testnet import PATIENCE_S, assert_all_gone, launched, scratch, texts

pytestmark = pytest.mark.net
__all__ = ["scratch", "texts"]  # fixtures
EPOCHS, STAGE, W = 5, 0, 40_000


def make_run(home: Path, documents: str, most_in_a_roster: int | None = None) -> None:
    """Put a run of one stage with epochs of some seconds into a testnet's home: all peers are its replicas."""
    made = TestnetHome(home, home)
    home.mkdir()
    plan = with_stages(load_plan(find_config("tiny")), 1)
    epoch = plan.epoch.model_copy(update={"target_microbatches": 24})
    merge = MergeSpec(most_in_a_roster=most_in_a_roster)
    plan = plan.model_copy(update={"epoch": epoch, "merge": merge, "validation": None})
    store = ShardStore(made.peer(1) / SHARDS_NAME)
    made.run_file.write_bytes(found_run(plan, files(documents), ByteTokenizer(), store, seed=0).to_bytes())


async def epochs_of(scratch: Path, home: Path, *words: str | int) -> list[dict[str, Any]]:
    """Run a testnet to its end; return the epochs of its summary, in which each peer told what it began with."""
    result = home.with_suffix(".json")
    async with launched(
        scratch, *map(str, ("--home", home, "--summary", result, *words)), patience_s=3 * PATIENCE_S
    ) as testnet:
        assert await testnet.end() == 0, testnet.lines
        await assert_all_gone(testnet.process, scratch, home)
    epochs: list[dict[str, Any]] = json.loads(result.read_text())["epochs"]
    return epochs


async def test_replicas__end_five_epochs_with_equal_digests(scratch: Path, tmp_path: Path, texts: str) -> None:
    """Three processes hold one stage; each tells the digest of what it began every epoch with."""
    make_run(tmp_path / "home", texts)
    epochs = await epochs_of(scratch, tmp_path / "home", "--epochs", EPOCHS + 1)
    merged = [row for row in epochs if row["members"] > 1]
    assert len(merged) >= EPOCHS
    assert [row for row in epochs if not row["equal"]] == []
    assert {row["faults"] for row in merged} == {0}


async def test_replicas__end_epochs_with_equal_digests_in_a_grid(scratch: Path, tmp_path: Path, texts: str) -> None:
    """Six processes hold one stage of which a roster takes three: two rows, and then the mean of both."""
    make_run(tmp_path / "home", texts, most_in_a_roster=3)
    epochs = await epochs_of(scratch, tmp_path / "home", "--peers", 6, "--epochs", 3)
    assert [row for row in epochs if not row["equal"]] == []
    assert {row["faults"] for row in epochs} == {0}
    assert max(row["members"] for row in epochs) == 6  # on a busy machine a row may be late for one merge


@dataclass
class Replica:
    """One that holds the stage."""

    means: Means
    point: MeetingPoint
    memory: MergeMemory
    letters: Letters | None = None

    def take(self, caller: PeerId, note: Note) -> None:
        """Take a letter once we merge."""
        if self.letters is None:
            raise RefusedError("not-yet", "expected a merge, got a letter")
        self.letters.take(caller, note.what, note.data)

    async def merge(self, vector: Vector, nursery: trio.Nursery, outcomes: list[Outcome]) -> None:
        """Merge with whom the meeting point knows."""
        self.letters = Letters(self.means, STAGE, 0, nursery)
        committed = commit(vector, CODECS["int8"], None)
        work = EpochWork(np.zeros(W, dtype=np.float32), 10, digest(b"log"))
        own = sign_contribution(self.means, Origin(STAGE, 0, digest(b"base"), "int8"), work, committed)
        self.memory.keep_committed(STAGE, 0, own.digest, committed)
        outcome = await Encounter(
            means=self.means,
            letters=self.letters,
            memory=self.memory,
            own=own,
            committed=committed,
            seed=digest(b"seed"),
            into_W=work.theta_W,
            expected=self.point.expected,
        ).run()
        assert outcome is not None
        outcomes.append(outcome)


async def replica(number: int, host: DaemonHost, stack: AsyncExitStack) -> Replica:
    """Open one that no advert has told of anybody."""
    streams = await stack.enter_async_context(open_streams(host))
    means = Means(identity=identity(number), run_id=RUN_ID, streams=streams, beside=at_once, clock=time.time)
    fetch = BaseFetch(means, STAGE, W, velocity=False)
    point = MeetingPoint(Rendezvous(host, RUN_ID), means.identity.peer_id, STAGE, tuple, fetch.ask)
    one = Replica(means, point, MergeMemory())
    one.memory.bases[STAGE] = KnownBase.of(OuterState(np.zeros(W, dtype=np.float32)), 0)
    await streams.serve(MERGE, MergeServer(one.memory, one.take).answer)
    return one


async def test_replicas__meet_by_rendezvous_and_merge_without_adverts_or_gossip() -> None:
    """Two replicas on real daemons, neither of which has heard of the other: only DHT records bring them together."""
    outcomes: list[Outcome] = []
    async with open_hosts(3) as hosts, AsyncExitStack() as stack:
        both = [await replica(number, host, stack) for number, host in enumerate(hosts[1:], 2)]
        async with trio.open_nursery() as nursery:
            for one in both:
                one.point.attend(0, nursery)
            while not all(one.point.found for one in both):  # noqa: ASYNC110 - this has no event of its own
                await trio.sleep(0.05)
            async with trio.open_nursery() as meeting:
                for one, vector in zip(both, gradients(2, W), strict=True):
                    meeting.start_soon(one.merge, vector, nursery, outcomes)
            nursery.cancel_scope.cancel()
    ids = sorted(one.means.identity.peer_id for one in both)
    assert [sorted(outcome.members) for outcome in outcomes] == [ids, ids]
    assert len({outcome.reduction.gradient_W.tobytes() for outcome in outcomes}) == 1
