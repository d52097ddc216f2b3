"""Second visits in a swarm that trains: the same data on drawn ways, in records that make pairs; nothing is lost."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import numpy as np
import pytest
from trio.testing import MockClock

from iota_p2p.run.data import RunData
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunSpec, ValidationSpec
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.microbatch import SECOND_VISIT, MicrobatchId
from iota_p2p_protocols.scoring.paired_probes import find_pairs
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from tests.sim.training_swarms import SLOW, drained, noting_losses, offences, total

PAIR_EVERY = 4
SOURCE = Identity.from_seed(bytes(32)).peer_id


def paired_run(folder: Path, pair_every: int = PAIR_EVERY) -> RunSpec:
    return small_run(folder).model_copy(update={"validation": ValidationSpec(pair_every=pair_every)})


async def test_second_visits__are_trained_on_like_any_other(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_training_swarm(1, paired_run(tmp_path), tmp_path) as swarm:
        members = [await swarm.start(number, pinned=(number % 2,), costs=SLOW) for number in range(4)]
        with noting_losses(*members) as losses:
            await swarm.until(lambda: len(losses) > 80)
        await drained(swarm)
        done = [MicrobatchId(epoch=epoch, source=source, counter=counter) for epoch, source, counter, _ in losses]
        pairs = find_pairs(done, PAIR_EVERY)
        assert 8 <= len(pairs) <= len(done) // (PAIR_EVERY + 1)
        assert {done[first].source for first, _ in pairs} == {one.peer.identity.peer_id for one in members[::2]}
        assert total(swarm, "lost") == 0
        assert offences(swarm) == {}


def test_second_visit__has_the_data_of_the_first(tmp_path: Path) -> None:
    data = RunData(paired_run(tmp_path), ShardStore(tmp_path / "shards"))
    first, other = (MicrobatchId(epoch=3, source=SOURCE, counter=counter) for counter in (5, 6))
    data.check_counter(first.second_visit())
    np.testing.assert_array_equal(data.training_window(first), data.training_window(first.second_visit()))
    assert not np.array_equal(data.training_window(first), data.training_window(other))


@pytest.mark.parametrize(
    ("counter", "pair_every", "rule"),
    [
        (2**39, PAIR_EVERY, "microbatch-counter"),
        (SECOND_VISIT + 2**39, PAIR_EVERY, "microbatch-counter"),
        (2 * SECOND_VISIT, PAIR_EVERY, "microbatch-counter"),
        (SECOND_VISIT + 3, 0, "microbatch-visit"),
    ],
    ids=["no such data", "no such data twice", "a third visit", "a run without second visits"],
)
def test_counter__refused_where_it_names_no_data(counter: int, pair_every: int, rule: str, tmp_path: Path) -> None:
    data = RunData(paired_run(tmp_path, pair_every), ShardStore(tmp_path / "shards"))
    with pytest.raises(MalformedError) as refused:
        data.check_counter(MicrobatchId(epoch=0, source=SOURCE, counter=counter))
    assert refused.value.rule == rule
