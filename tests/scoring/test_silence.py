"""Silence: named is only who was elected whatever it drew, and shows nothing."""

import pytest

from iota_p2p_protocols.scoring.election import Electorate, elect
from iota_p2p_protocols.scoring.silence import silent_validators, surely_elected
from tests.scoring.scenes import EPOCH, RUN, VALIDATORS

FIRST, SECOND, *_ = PEERS = sorted(one.peer_id for one in VALIDATORS)


@pytest.mark.parametrize(
    ("weights", "seats", "expected"),
    [
        ((1, 1, 1, 1), 4, 4),
        ((1, 1, 1, 1), 20, 4),
        ((1, 1, 1, 1), 3, 0),
        ((4, 1, 1, 1), 2, 1),
        ((4, 1, 1, 1), 7, 4),
        ((4, 1, 1, 1), 6, 1),
    ],
)
def test_surely_elected__are_those_with_a_whole_seat(weights: tuple[int, ...], seats: int, expected: int) -> None:
    voters = Electorate(EPOCH, dict(zip(PEERS, weights, strict=True)), seats)
    assert len(surely_elected(voters)) == expected


def test_surely_elected__are_elected_by_any_seed() -> None:
    voters = Electorate(EPOCH, {one.peer_id: 1 for one in VALIDATORS}, len(VALIDATORS))
    for number in range(20):
        proofs = [elect(one, voters, run_id=RUN, seed=bytes([number]) * 32) for one in VALIDATORS]
        assert {proof.round for proof in proofs if proof is not None} == {0}
        assert None not in proofs


def test_silent_validators__are_sure_ones_without_a_record() -> None:
    voters = Electorate(EPOCH, dict.fromkeys(PEERS, 1), len(PEERS))
    assert silent_validators(voters, PEERS) == ()
    assert set(silent_validators(voters, PEERS[:2])) == set(PEERS[2:])
    few = Electorate(EPOCH, dict.fromkeys(PEERS, 1), len(PEERS) - 1)
    assert silent_validators(few, ()) == ()
