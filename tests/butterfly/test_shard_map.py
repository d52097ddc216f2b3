from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS, ShardMap, draw_shard_map
from iota_p2p_protocols.errors import LocalProtocolError

CERTIFICATE = digest(b"certificate")
MAPS = st.builds(
    draw_shard_map,
    st.binary(min_size=32, max_size=32).map(Digest),
    st.sampled_from([1, 2, 3, 5, 8, 16, 50, MAX_MEMBERS]),
    st.integers(1, 3000),
)


@given(MAPS)
def test_map__gives_every_pair_one_shard_and_every_block_one_place(drawn: ShardMap) -> None:
    pairs = sorted(combinations(range(drawn.num_members), 2)) or [(0, 0)]
    assert sorted(shard.pair for shard in drawn.shards) == pairs
    assert [block for shard in drawn.shards for block in shard.blocks] == list(range(drawn.num_blocks))
    sizes = [len(shard.blocks) for shard in drawn.shards]
    assert max(sizes) - min(sizes) <= 1


@given(MAPS)
def test_members__share_exactly_one_shard_with_each_other(drawn: ShardMap) -> None:
    for member in range(drawn.num_members):
        partners = [other for shard in drawn.of(member) for other in shard.reducers if other != member]
        assert sorted(partners) == [other for other in range(drawn.num_members) if other != member]


@given(MAPS)
def test_members__reduce_as_many_blocks_as_others_but_for_two(drawn: ShardMap) -> None:
    loads = [sum(len(shard.blocks) for shard in drawn.of(member)) for member in range(drawn.num_members)]
    assert max(loads) - min(loads) <= 2


def test_lone_member__reduces_everything() -> None:
    (shard,) = draw_shard_map(CERTIFICATE, 1, 40).shards
    assert (shard.reducers, shard.blocks, shard.source_for(0)) == ((0,), range(40), 0)


def test_two_members__both_reduce_everything() -> None:
    (shard,) = draw_shard_map(CERTIFICATE, 2, 40).shards
    assert (shard.reducers, shard.blocks) == ((0, 1), range(40))
    assert [shard.source_for(member) for member in range(2)] == [0, 1]


def test_sources__are_reducers_and_share_the_load() -> None:
    drawn = draw_shard_map(CERTIFICATE, 16, 1200)
    asked = Counter(shard.source_for(member) for shard in drawn.shards for member in set(range(16)) - set(shard.pair))
    assert all(shard.source_for(member) == member for member in range(16) for shard in drawn.of(member))
    assert max(asked.values()) <= 1.5 * min(asked.values())


def test_map__depends_on_the_certificate() -> None:
    assert draw_shard_map(CERTIFICATE, 8, 99).shards != draw_shard_map(digest(b"another"), 8, 99).shards


def test_map__is_the_same_everywhere() -> None:
    assert [shard.pair for shard in draw_shard_map(CERTIFICATE, 4, 6).shards] == [
        (2, 3),
        (0, 1),
        (1, 2),
        (0, 3),
        (0, 2),
        (1, 3),
    ]


@pytest.mark.parametrize(("members", "blocks"), [(0, 1), (2, 0)])
def test_map__refuses_sizes_out_of_bounds(members: int, blocks: int) -> None:
    with pytest.raises(LocalProtocolError):
        draw_shard_map(CERTIFICATE, members, blocks)


def test_of__refuses_a_stranger() -> None:
    with pytest.raises(LocalProtocolError):
        draw_shard_map(CERTIFICATE, 3, 9).of(3)
