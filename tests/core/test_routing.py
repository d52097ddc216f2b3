import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.errors import InvalidProofError, LocalProtocolError
from iota_p2p_protocols.message import UINT63_MAX
from iota_p2p_protocols.refusal import Refusal, open_refusal, seal_refusal
from iota_p2p_protocols.routing import Draw, draw_order, explain_route, negative_log2
from tests.core.pathways import PEERS

IDS = tuple(peer.peer_id for peer in PEERS)
SEED = b"epoch seed".ljust(32)
WEIGHTS = st.dictionaries(st.sampled_from(IDS), st.integers(1, UINT63_MAX), min_size=1)


def digest_number(number: int) -> bytes:
    return number.to_bytes(32, "big")


@given(st.integers(0, 2**64 - 1))
def test_negative_log2__is_the_logarithm_to_the_last_bit_but_one(hashed: int) -> None:
    exact = -math.log2((2 * hashed + 1) / 2**65) * 2**32
    assert abs(negative_log2(hashed) - exact) <= 2 + exact * 1e-14


def test_negative_log2__is_positive_and_exact_where_it_can_be() -> None:
    assert negative_log2(2**64 - 1) == 1  # rounded up: no hash is a free ticket
    assert negative_log2(0) == 65 << 32


@given(st.integers(0, 2**64 - 2))
def test_negative_log2__never_rises_with_the_hash(hashed: int) -> None:
    assert negative_log2(hashed) >= negative_log2(hashed + 1)


@given(weights=WEIGHTS, stage=st.integers(0, 63), number=st.integers(0, 2**64))
def test_draw__is_a_permutation_that_ignores_the_order_of_the_table(
    weights: dict[PeerId, int], stage: int, number: int
) -> None:
    draw = draw_order(SEED, digest_number(number), stage, weights)
    assert sorted(draw.order) == sorted(weights)
    assert draw_order(SEED, digest_number(number), stage, dict(reversed(weights.items()))) == draw


@given(weights=WEIGHTS, number=st.integers(0, 2**64), gone=st.sampled_from(IDS))
def test_draw__keeps_the_order_of_the_others_when_one_leaves(
    weights: dict[PeerId, int], number: int, gone: PeerId
) -> None:
    before = draw_order(SEED, digest_number(number), 1, weights).order
    after = draw_order(SEED, digest_number(number), 1, {**weights, gone: 0}).order
    assert after == tuple(peer_id for peer_id in before if peer_id != gone)


@pytest.mark.parametrize("unit", [1, 10**15])
def test_draw__is_first_in_proportion_to_weight(unit: int) -> None:
    weights = {peer_id: unit * weight for peer_id, weight in zip(IDS, (1, 2, 3, 4), strict=False)}
    num_draws = 4000
    firsts = Counter(draw_order(SEED, digest_number(number), 1, weights).order[0] for number in range(num_draws))
    expected = {peer_id: num_draws * weight / sum(weights.values()) for peer_id, weight in weights.items()}
    chi_square = sum((firsts[peer_id] - share) ** 2 / share for peer_id, share in expected.items())
    assert chi_square < 16.3  # 3 degrees of freedom, p = .001; the draws are fixed, so this never flickers


def test_draw__is_second_in_proportion_to_weight_among_the_rest() -> None:
    weights = dict(zip(IDS, (6, 1, 3), strict=False))
    orders = [draw_order(SEED, digest_number(number), 1, weights).order for number in range(3000)]
    seconds = Counter(order[1] for order in orders if order[0] == IDS[0])
    assert seconds[IDS[2]] / seconds.total() == pytest.approx(0.75, abs=0.04)  # 3.9 standard deviations


def test_draw__differs_with_seed_microbatch_and_stage() -> None:
    weights = dict.fromkeys(IDS, 1)
    orders = {
        draw_order(seed, digest_number(number), stage, weights).order
        for seed in (SEED, bytes(32))
        for number in (0, 1)
        for stage in (1, 2)
    }
    assert len(orders) == 8


def test_draw__leaves_out_weight_zero_and_refuses_nonsense() -> None:
    assert draw_order(SEED, digest_number(0), 1, {IDS[0]: 0, IDS[1]: 1}).order == (IDS[1],)
    for weight in (-1, UINT63_MAX + 1):
        with pytest.raises(LocalProtocolError):
            draw_order(SEED, digest_number(0), 1, {IDS[0]: weight})


DRAW = Draw(digest_number(5), 2, IDS[:4])


def refusal_by(peer: Identity, microbatch: bytes = DRAW.microbatch, stage: int = DRAW.stage) -> bytes:
    return seal_refusal(Refusal(microbatch=microbatch, stage=stage, reason="busy", queue_length=3), peer)


def test_explain_route__is_empty_for_the_first_choice() -> None:
    assert explain_route(DRAW, IDS[0], ()) == ()


def test_explain_route__names_who_was_skipped_without_a_refusal() -> None:
    refusals = [open_refusal(refusal_by(PEERS[1]))]
    assert explain_route(DRAW, IDS[3], refusals) == (IDS[0], IDS[2])
    refusals += [open_refusal(refusal_by(peer)) for peer in (PEERS[0], PEERS[2])]
    assert explain_route(DRAW, IDS[3], refusals) == ()


def test_explain_route__does_not_count_refusals_of_something_else() -> None:
    others = [refusal_by(PEERS[0], microbatch=digest_number(6)), refusal_by(PEERS[0], stage=1)]
    assert explain_route(DRAW, IDS[1], map(open_refusal, others)) == (IDS[0],)


def test_explain_route__refuses_a_replica_outside_the_draw() -> None:
    with pytest.raises(InvalidProofError) as caught:
        explain_route(DRAW, IDS[5], ())
    assert caught.value.rule == "route-drawn"
