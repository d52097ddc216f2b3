"""Second visits: one of every so many counters, drawn by the source's key, when the first visit is surely home."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.training.second_visits import SecondVisits
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.scoring.paired_probes import find_pairs

ALICE, BOB = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2))
RUN = bytes(32)


def started(identity: Identity, pair_every: int, count: int, epoch: int = 0) -> list[MicrobatchId]:
    """Return what a source starts, in order: so many first visits, and the second ones that are due among them."""
    visits, made = SecondVisits(identity, RUN, pair_every), []
    for counter in range(count):
        first = MicrobatchId(epoch=epoch, source=identity.peer_id, counter=counter)
        due = visits.due_after(first)
        made += [first] if due is None else [first, due]
    return made


@given(st.integers(1, 40), st.integers(0, 300))
def test_second_visits__one_of_every_so_many(pair_every: int, count: int) -> None:
    made = started(ALICE, pair_every, count)
    pairs = find_pairs(made, pair_every)
    assert len(pairs) == len([one for one in made if one.is_second]) == max(0, count // pair_every - 1)
    assert len({made[first].counter // pair_every for first, _ in pairs}) == len(pairs)
    for first, second in pairs:
        between = [one for one in made[first + 1 : second] if not one.is_second]
        assert pair_every <= len(between) < 2 * pair_every


def test_second_visits__nobody_else_can_draw_them_and_we_always_can() -> None:
    made = started(ALICE, 8, 400)
    assert made == started(ALICE, 8, 400)
    others = [started(BOB, 8, 400), started(ALICE, 8, 400, epoch=1)]
    drawn, *elsewhere = ([one.data_counter for one in these if one.is_second] for these in (made, *others))
    assert all(drawn != these for these in elsewhere)
    assert max(Counter(counter % 8 for counter in drawn).values()) < 20  # of 49; no place is known beforehand


def test_second_visits__none_in_a_run_without() -> None:
    assert not [one for one in started(ALICE, 0, 100) if one.is_second]
