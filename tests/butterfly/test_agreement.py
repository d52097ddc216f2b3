import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.agreement import (
    Agreement,
    Reports,
    agreement_matrix,
    claims_by_shard,
    disputed,
    settle,
    settle_all,
)
from iota_p2p_protocols.butterfly.reducer_report import ShardClaim
from iota_p2p_protocols.butterfly.shard_map import Shard, ShardMap, draw_shard_map
from tests.butterfly.reports import TRUTH, Said, honest, reports
from tests.butterfly.test_shard_map import CERTIFICATE

GROUPS = (1, 2, 3, 5, 8, 16)


def alone(member: int, shard: Shard) -> ShardClaim:
    """Lie without a friend."""
    return ShardClaim(shard=shard.index, digest=digest(b"lie of %d" % member))


def together(_: int, shard: Shard) -> ShardClaim:
    """Lie as all colluders do."""
    return ShardClaim(shard=shard.index, digest=digest(b"the lie"))


def without(*missing: int) -> Said:
    """Tell the truth about fewer inputs."""
    return lambda _, shard: ShardClaim(shard=shard.index, digest=digest(repr(missing).encode()), missing=missing)


def settled(drawn: ShardMap, said: Reports) -> set[bytes | None]:
    return {None if claim is None else claim.digest for claim in settle_all(drawn, said)}


@pytest.mark.parametrize("members", GROUPS)
def test_honest_members__agree_and_everything_is_settled(members: int) -> None:
    drawn = draw_shard_map(CERTIFICATE, members, 200)
    said = reports(drawn)
    assert agreement_matrix(drawn, said).suspects() == ()
    assert disputed(drawn, said) == ()
    assert settled(drawn, said) == {TRUTH}


@given(st.integers(3, 16), st.data())
def test_row_majority__finds_colluders_below_half(members: int, data: st.DataObject) -> None:
    """Colluders (k) disagree with the N - k others, and each honest member with the k: right while k < N / 2."""
    num_liars = data.draw(st.integers(0, (members - 1) // 2))
    liars = data.draw(st.permutations(range(members)))[:num_liars]
    drawn = draw_shard_map(CERTIFICATE, members, 200)
    matrix = agreement_matrix(drawn, reports(drawn, dict.fromkeys(liars, together)))
    assert [matrix.disagreements(m) for m in range(members)] == [
        members - num_liars if m in liars else num_liars for m in range(members)
    ]
    assert matrix.suspects() == tuple(sorted(liars))


@given(st.integers(3, 16), st.data())
def test_independent_liars__disagree_with_everybody(members: int, data: st.DataObject) -> None:
    liars = data.draw(st.sets(st.integers(0, members - 1), max_size=members))
    drawn = draw_shard_map(CERTIFICATE, members, 200)
    matrix = agreement_matrix(drawn, reports(drawn, dict.fromkeys(liars, alone)))
    assert all(matrix.disagreements(liar) == members - 1 for liar in liars)


@given(st.integers(2, 16), st.data())
def test_proved_liars__leave_the_truth_or_nothing(members: int, data: st.DataObject) -> None:
    """With the liars named by proofs only shards with two of them are lost, and no lie is ever taken."""
    liars = data.draw(st.sets(st.integers(0, members - 1), max_size=members))
    drawn = draw_shard_map(CERTIFICATE, members, 200)
    said = reports(drawn, dict.fromkeys(liars, alone))
    assert {shard.index for shard in disputed(drawn, said)} == {
        shard.index for shard in drawn.shards if liars & set(shard.pair)
    }
    assert disputed(drawn, said, liars) == ()
    for shard, got in zip(drawn.shards, settle_all(drawn, said, liars), strict=True):
        assert (None if got is None else got.digest) == (None if set(shard.pair) <= liars else TRUTH)


def test_open_dispute__loses_the_shard() -> None:
    drawn = draw_shard_map(CERTIFICATE, 2, 9)
    assert settle_all(drawn, reports(drawn, {1: alone})) == (None,)


def test_one_silent_reducer__leaves_the_other_copy() -> None:
    drawn = draw_shard_map(CERTIFICATE, 3, 9)
    said = {member: of for member, of in reports(drawn).items() if member != 1}
    assert agreement_matrix(drawn, said).rows[0][1] is Agreement.SILENT
    assert settled(drawn, said) == {TRUTH}


def test_two_silent_reducers__lose_their_shard_only() -> None:
    drawn = draw_shard_map(CERTIFICATE, 4, 60)
    said = {member: of for member, of in reports(drawn).items() if member > 1}
    lost = [shard.pair for shard, taken in zip(drawn.shards, settle_all(drawn, said), strict=True) if taken is None]
    assert lost == [(0, 1)]


def test_different_inputs__are_no_dispute_and_the_fuller_copy_is_taken() -> None:
    drawn = draw_shard_map(CERTIFICATE, 5, 60)
    said = reports(drawn, {1: without(3, 4), 2: without(4)})
    assert agreement_matrix(drawn, said).rows[1][2] is Agreement.APART
    assert disputed(drawn, said) == ()
    shard = next(shard for shard in drawn.shards if shard.pair == (1, 2))
    taken = settle(claims_by_shard(drawn, said)[shard.index])
    assert taken is not None
    assert taken.missing == (4,)


def test_matrix__is_symmetric_and_prints_one_character_an_entry() -> None:
    drawn = draw_shard_map(CERTIFICATE, 4, 60)
    matrix = agreement_matrix(drawn, reports(drawn, {3: together}))
    assert all(matrix.rows[i][j] is matrix.rows[j][i] for i in range(4) for j in range(4))
    assert str(matrix).splitlines() == [" ==x", "= =x", "== x", "xxx "]


def test_empty_shards__need_no_claims() -> None:
    drawn = draw_shard_map(CERTIFICATE, 5, 2)
    said = reports(drawn, {0: honest})
    assert disputed(drawn, said) == ()
    assert sum(claim is not None for claim in settle_all(drawn, said)) == 2
