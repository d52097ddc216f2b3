"""Who replays what: dealt evenly and without overlap, within a budget, suspects first."""

from fractions import Fraction

import pytest

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.scoring.replay_draw import Budget, Pair, deal_replays, draw_segment
from iota_p2p_protocols.scoring.segments import Segment

PEERS = [Identity.from_seed(bytes([n]) * 32).peer_id for n in range(8)]
PAIRS: list[Pair] = [(peer_id, n % 4) for n, peer_id in enumerate(PEERS)]


def seed(number: int) -> bytes:
    return digest(b"%d" % number)


def hands(
    number: int, *, suspects: tuple[PeerId, ...] = (), seats: int = 16, pairs: list[Pair] = PAIRS
) -> dict[PeerId, tuple[Pair, ...]]:
    return deal_replays(seed(number), pairs, suspects, PEERS, seats)


def test_deal__gives_every_peer_to_another_one() -> None:
    """As many validators as peers: each is looked at every epoch, and nobody by itself."""
    for number in range(200):
        dealt = hands(number)
        assert dealt == hands(number, pairs=PAIRS[::-1])
        assert sorted(pair for hand in dealt.values() for pair in hand) == sorted(PAIRS)
        assert all(pair[0] != peer_id for peer_id, hand in dealt.items() for pair in hand)


def test_deal__lets_nobody_choose_whom_it_looks_at() -> None:
    first = [hands(number)[PEERS[0]] for number in range(700)]
    counts = {pair: sum(pair in hand for hand in first) for pair in PAIRS[1:]}
    assert all(60 < count < 140 for count in counts.values())  # 100 each, and 9 either way


def test_deal__puts_suspects_first() -> None:
    for number in range(50):
        dealt = deal_replays(seed(number), PAIRS, PEERS[6:], PEERS[:2], 16)
        assert {hand[0][0] for hand in dealt.values()} == set(PEERS[6:])


def test_deal__leaves_nobody_out_where_not_all_are_elected() -> None:
    """Four seats and eight who may be elected: two are dealt the same, so that whoever is elected, most is seen."""
    dealt = hands(1, seats=4)
    assert {pair for hand in dealt.values() for pair in hand} == set(PAIRS)
    assert all(len(hand) in (1, 2, 3) for hand in dealt.values())


def test_budget__is_spent_on_average_whatever_one_segment_costs() -> None:
    spent = 0.0
    for number in range(4000):
        budget = Budget(0.1)
        spent += sum(
            cost for pair, cost in zip(PAIRS, (0.06, 0.08), strict=False) if budget.takes(seed(number), pair, cost)
        )
    assert spent / 4000 == pytest.approx(0.1, abs=0.003)
    assert Budget(0.1).takes(seed(0), PAIRS[0], 0.1)
    assert not Budget(0.0).takes(seed(0), PAIRS[0], 0.1)


def test_draw_segment__is_even() -> None:
    segments = [Segment(n, n, n + 1) for n in range(5)]
    counts = [0] * 5
    for number in range(1000):
        counts[draw_segment(seed(number), PAIRS[0], segments).index] += 1
    assert all(abs(Fraction(count, 1000) - Fraction(1, 5)) < Fraction(1, 20) for count in counts)
