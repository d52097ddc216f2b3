"""Sortition: in proportion to capped stake, provable, and open only to those who came before the seed."""

from collections import Counter
from hashlib import sha512
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.errors import InvalidProofError, LocalProtocolError, MalformedError
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.election import (
    MAX_ROUNDS,
    MAX_STAKE_RATIO,
    REGISTRATION_LEAD,
    ElectionProof,
    Electorate,
    Registration,
    _is_elected,
    capped_weights,
    elect,
    electorate,
    verify_election,
)
from iota_p2p_protocols.scoring.seed_chain import genesis_seed, next_seed
from tests.scoring.scenes import EPOCH, NOW_S, RUN, SEED, VALIDATORS, voters

PEERS = [validator.peer_id for validator in VALIDATORS]


def registration(
    by: Identity, epoch: int, *, stake: int = 1, sequence: int = 1, active: bool = True
) -> Verified[Registration]:
    message = Registration(
        run_id=RUN, sequence=sequence, issued_s=NOW_S, expires_s=NOW_S + 60, epoch=epoch, stake=stake, active=active
    )
    return open_signed(seal_message(message, by), Registration)


def test_election__proves_itself() -> None:
    for validator in VALIDATORS:
        proof = elect(validator, voters(), run_id=RUN, seed=SEED)
        assert proof is not None
        assert proof.round == 0
        assert len(verify_election(validator.peer_id, proof, voters(), run_id=RUN, seed=SEED)) == 64


def test_election__reject_anothers_proof_another_seed_and_a_stranger() -> None:
    one, other = VALIDATORS[:2]
    proof = elect(one, voters(), run_id=RUN, seed=SEED)
    assert proof is not None
    with pytest.raises(InvalidProofError):
        verify_election(other.peer_id, proof, voters(), run_id=RUN, seed=SEED)
    with pytest.raises(InvalidProofError):
        verify_election(one.peer_id, proof, voters(), run_id=RUN, seed=bytes(32))
    with pytest.raises(InvalidProofError, match="candidate"):
        verify_election(one.peer_id, proof, Electorate(EPOCH, {other.peer_id: 1}, 8), run_id=RUN, seed=SEED)
    bad = ElectionProof(proof=bytes(80), round=0)
    with pytest.raises((InvalidProofError, MalformedError)):
        verify_election(one.peer_id, bad, voters(), run_id=RUN, seed=SEED)


def test_election__reject_a_round_whose_bar_the_output_misses() -> None:
    """A thousand candidates for one seat: nobody of ours is elected in round 0, and claiming it shows."""
    crowd = {Identity.from_seed(number.to_bytes(32, "big")).peer_id: 1 for number in range(200)}
    narrow = Electorate(EPOCH, crowd | {PEERS[0]: 1}, 1)
    proof = elect(VALIDATORS[0], voters(), run_id=RUN, seed=SEED)
    assert proof is not None
    with pytest.raises(InvalidProofError, match="round 0"):
        verify_election(PEERS[0], proof, narrow, run_id=RUN, seed=SEED)


@given(st.binary(min_size=64, max_size=64), st.integers(1, 20))
def test_later_rounds__elect_everybody_that_earlier_ones_did(output: bytes, seats: int) -> None:
    some = Electorate(EPOCH, dict.fromkeys(PEERS, 1) | {PEERS[0]: 3}, seats)
    elected = [_is_elected(output, PEERS[0], some, number) for number in range(MAX_ROUNDS)]
    assert elected == sorted(elected)


def test_sortition__elects_in_proportion_to_weight() -> None:
    """20,000 epochs, weights 1 to 4 of 10, one seat: within 3 % of the share."""
    some = Electorate(EPOCH, {peer_id: number + 1 for number, peer_id in enumerate(PEERS)}, 1)
    epochs = 20_000
    elected: Counter[PeerId] = Counter()
    for epoch in range(epochs):
        for peer_id in PEERS:
            output = sha512(f"{epoch} {peer_id}".encode()).digest()
            elected[peer_id] += _is_elected(output, peer_id, some, 0)
    for number, peer_id in enumerate(PEERS):
        assert elected[peer_id] / epochs == pytest.approx((number + 1) / 10, rel=0.05)


def test_electorate__takes_the_newest_registration_that_is_old_enough() -> None:
    one, two, three, four = VALIDATORS
    old = EPOCH - REGISTRATION_LEAD
    found = electorate(
        [
            registration(one, old, stake=5),
            registration(one, old, stake=7, sequence=2),
            registration(one, old + 1, stake=9, sequence=3),  # too late for this epoch
            registration(two, old + 1),
            registration(three, old, sequence=2, active=False),
            registration(three, old),
            registration(four, 0, stake=4),
        ],
        epoch=EPOCH,
        seats=3,
    )
    assert found.weights == {one.peer_id: 7, four.peer_id: 4}


@given(st.dictionaries(st.sampled_from(PEERS), st.integers(1, 2**53)))
def test_weights__never_exceed_four_times_the_middle_one(stakes: dict[PeerId, int]) -> None:
    weights = capped_weights(stakes)
    assert weights.keys() == stakes.keys()
    if stakes:
        middle = sorted(stakes.values())[(len(stakes) - 1) // 2]
        assert all(weights[one] == min(stake, MAX_STAKE_RATIO * middle) for one, stake in stakes.items())


@pytest.mark.parametrize(
    ("candidates", "quorum"), [(1, 1), (2, 2), (3, 3), (4, 3), (7, 5), (10, 7), (16, 11), (50, 11)]
)
def test_quorum__is_over_two_thirds_of_seats_or_candidates(candidates: int, quorum: int) -> None:
    crowd = {Identity.from_seed(number.to_bytes(32, "big")).peer_id: 1 for number in range(candidates)}
    assert Electorate(EPOCH, crowd, 16).quorum == quorum


def test_seed__depends_on_every_output_and_on_no_order() -> None:
    outputs = {peer_id: sha512(peer_id.encode()).digest() for peer_id in PEERS}
    seed = next_seed(genesis_seed(RUN), 1, outputs)
    assert seed == next_seed(genesis_seed(RUN), 1, dict(reversed(outputs.items())))
    assert seed != next_seed(genesis_seed(RUN), 2, outputs)
    assert seed != next_seed(genesis_seed(RUN), 1, outputs | {PEERS[0]: bytes(64)})
    with pytest.raises(LocalProtocolError):
        next_seed(genesis_seed(RUN), 1, {PEERS[0]: bytes(63)})


@pytest.mark.parametrize("num_colluders", [0, 1, 2, 3])
def test_bias__colluders_choose_among_no_more_than_2_to_the_k_seeds(num_colluders: int) -> None:
    """Withholding is all they can do: outputs are fixed by keys and input."""
    outputs = {peer_id: sha512(peer_id.encode()).digest() for peer_id in PEERS}
    honest = dict(list(outputs.items())[num_colluders:])
    colluders = list(outputs.items())[:num_colluders]
    seeds = {
        next_seed(genesis_seed(RUN), 1, honest | dict(revealed))
        for size in range(num_colluders + 1)
        for revealed in combinations(colluders, size)
    }
    assert len(seeds) == 2**num_colluders
