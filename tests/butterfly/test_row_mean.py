from functools import partial
from typing import Any

import pytest

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.roster import propose
from iota_p2p_protocols.butterfly.row_mean import (
    RowMean,
    check_other_row,
    check_own_row,
    choose_rows,
    is_row,
    row_mean_of,
)
from iota_p2p_protocols.butterfly.shard_map import draw_shard_map
from iota_p2p_protocols.butterfly.vote import join_votes, open_vote_certificate
from tests.butterfly.rosters import FOUR, contributed
from tests.butterfly.rows import row_certificate, row_mean, row_members, seat_of, signed_row
from tests.butterfly.test_merge_certificate import refusal
from tests.core.members import PEERS

OWN = row_mean(0)


def test_members__certify_their_row_by_two_thirds() -> None:
    mean, members = row_mean(1), row_members(1)
    votes = [signed_row(mean, member) for member in members]
    assert join_votes(votes[:1], RowMean) is None
    certificate = join_votes(votes[1:], RowMean)
    assert certificate is not None
    assert open_vote_certificate(certificate.envelope_bytes, RowMean).payload == mean
    lone = signed_row(mean, members[0]).envelope_bytes
    assert refusal(lambda: open_vote_certificate(lone, RowMean)) == "row-quorum"
    strange = signed_row(mean, *members, PEERS[12]).envelope_bytes
    assert refusal(lambda: open_vote_certificate(strange, RowMean)) == "row-signer"


@pytest.mark.parametrize("change", [{"samples": 1}, {"row": 2}, {"base_digest": digest(b"x")}, {"codec": "top-k"}])
def test_vote__refused_when_it_is_not_about_the_roster(change: dict[str, Any]) -> None:
    certificate = row_certificate(1)
    mean = row_mean_of(certificate, (0,), digest(b"mean"))
    check_own_row(mean, certificate)
    other = RowMean.model_validate({**mean.model_dump(), **change})
    assert refusal(lambda: check_own_row(other, certificate)) == "row-roster"


def test_lost_shards__are_blocks_without_a_result() -> None:
    mean = row_mean_of(row_certificate(1), (0, 2), digest(b"mean"))
    shards = draw_shard_map(row_certificate(1).digest, 3, 7).shards  # 100,000 values
    assert mean.lost_blocks == {*shards[0].blocks, *shards[2].blocks}


@pytest.mark.parametrize(
    ("mean", "rule"),
    [
        (row_mean(0, b"ours"), "row-merge"),
        (row_mean(1, epoch=8), "row-merge"),
        (row_mean(1, stage=2), "row-merge"),
        (row_mean(1, num_rows=4), "row-merge"),
        (row_mean(1, num_values=99), "row-shape"),
        (row_mean(1, codec="top-k"), "row-shape"),
        (row_mean(1, peers=row_members(1)[:1]), "row-members"),
        (row_mean(1, peers=row_members(2)), "row-members"),
        (row_mean(1, peers=[*row_members(1), *PEERS[12:14]]), "row-members"),
    ],
)
def test_other_row__refused_when_it_is_none_of_this_grid(mean: RowMean, rule: str) -> None:
    assert refusal(lambda: check_other_row(mean, OWN, seat_of())) == rule


def test_other_row__taken_when_a_third_is_missing_or_somebody_new_is_in_it() -> None:
    for peers in (row_members(1), row_members(1)[1:], [*row_members(1), PEERS[12]]):
        check_other_row(row_mean(1, peers=peers), OWN, seat_of())


def test_row__is_two_thirds_of_those_drawn_and_few_others() -> None:
    drawn = [peer.peer_id for peer in PEERS[:6]]
    assert is_row(drawn[:4], drawn)
    assert is_row([*drawn[:4], PEERS[8].peer_id], drawn)
    assert not is_row(drawn[:3], drawn)
    assert not is_row([*drawn, PEERS[8].peer_id, PEERS[9].peer_id], drawn)


def test_rows__are_chosen_alike_whoever_came_first() -> None:
    """Of two means of one row the one of more members; of two bases the one of more members, whatever our own is."""
    first, second, fewer = signed_row(OWN), signed_row(row_mean(1)), signed_row(row_mean(1, peers=row_members(1)[1:]))
    strange = signed_row(row_mean(2, base_digest=digest(b"other base")))
    for order in ((first, second, fewer, strange), (strange, fewer, second, first)):
        assert choose_rows(order) == (first, second)
    assert choose_rows([]) == ()


def test_contributions__of_two_rows_make_no_roster() -> None:
    """And one for the only row is none for a row of several."""
    for one in ({}, {"row": 0, "num_rows": 3}):
        mixed = [contributed(FOUR[0], **one), contributed(FOUR[1], row=1, num_rows=3)]
        assert refusal(partial(propose, mixed, 0, FOUR[0])) == "roster-alike"


def test_contribution__refused_for_a_row_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="row must be below"):
        contributed(FOUR[0], row=3, num_rows=3)
