"""Microbatch assignment: a permutation per peer, recomputable by anyone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.run.microbatch import Permutation, microbatches_per_source, window_indices
from iota_p2p_crypto.errors import LocalProtocolError
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.microbatch import MicrobatchId

ALICE, BOB = (Identity.from_seed(bytes([number] * 32)).peer_id for number in (1, 2))


def taken(source: PeerId, count: int, *, epoch: int = 0, num_windows: int = 1000, size: int = 4) -> list[int]:
    """Return the windows of a peer's first microbatches."""
    microbatches = [MicrobatchId(epoch=epoch, source=source, counter=counter) for counter in range(count)]
    return [index for item in microbatches for index in window_indices(b"seed", item, num_windows, size)]


@given(st.binary(min_size=1, max_size=64), st.integers(1, 700))
def test_permutation__meets_every_index_once(key: bytes, count: int) -> None:
    assert sorted(Permutation(key, count)) == list(range(count))


def test_permutation__is_the_same_for_ever() -> None:
    """Golden: peers that disagree here train on different data."""
    assert list(Permutation(b"key", 10)) == [2, 8, 1, 4, 6, 5, 0, 7, 3, 9]


@pytest.mark.parametrize("position", [-1, 10])
def test_permutation__has_no_position_outside(position: int) -> None:
    with pytest.raises(IndexError):
        Permutation(b"key", 10)[position]


def test_windows__are_unique_per_peer_until_they_are_all_taken() -> None:
    indices = taken(ALICE, microbatches_per_source(1001, 4), num_windows=1001)
    assert len(indices) == len(set(indices)) == 1000
    assert set(indices) <= set(range(1001))


def test_windows__end_when_they_would_repeat() -> None:
    with pytest.raises(LocalProtocolError, match="below 250"):
        window_indices(b"seed", MicrobatchId(epoch=0, source=ALICE, counter=250), 1000, 4)


def test_windows__differ_by_epoch_and_seed() -> None:
    item = MicrobatchId(epoch=0, source=ALICE, counter=0)
    draws = {
        window_indices(b"seed", item, 10**6, 4),
        window_indices(b"other", item, 10**6, 4),
        window_indices(b"seed", MicrobatchId(epoch=1, source=ALICE, counter=0), 10**6, 4),
    }
    assert len(draws) == 3


def test_windows__overlap_between_peers_as_independent_draws_do() -> None:
    """Two peers that take 1,000 of 10,000 windows each share 100 on average, with a deviation of 9."""
    shared = set(taken(ALICE, 250, num_windows=10_000)) & set(taken(BOB, 250, num_windows=10_000))
    assert 55 < len(shared) < 145


def test_windows__are_spread_evenly() -> None:
    """The first tenth of a peer's windows falls into every tenth of the data alike."""
    tenths = [index // 1000 for index in taken(ALICE, 250, num_windows=10_000)]
    assert min(tenths.count(tenth) for tenth in range(10)) > 60
