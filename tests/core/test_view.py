"""The view: what it takes in, who lives in it, and that it never depends on the order of what it hears."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols import view as view_module
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.errors import IgnoreError
from iota_p2p_protocols.view import ABSENCE_QUORUM, MAX_ABSENCES, NUM_WATCHED, View, ring_position
from tests.core.members import NOW_S, PEERS, opened_absence, opened_advert

ME, OTHER, *REST = PEERS
Fact = Verified[Advert] | Verified[Absence]


@cache
def advert(number: int, sequence: int = 1, *, leaving: bool = False, life_s: int = 60) -> Verified[Advert]:
    return opened_advert(PEERS[number], sequence, leaving=leaving, expires_s=NOW_S + life_s)


@cache
def absence(watcher: int, subject: int, sequence: int = 1) -> Verified[Absence]:
    return opened_absence(PEERS[watcher], PEERS[subject], sequence)


def filled(*facts: Fact, num_peers: int = len(PEERS)) -> View:
    """Return a view of the first peers' first adverts, and then these facts."""
    view = View(ME.peer_id)
    for fact in (*map(advert, range(num_peers)), *facts):
        hear(view, fact)
    return view


def hear(view: View, fact: Fact) -> bool:
    try:
        if isinstance(fact.payload, Advert):
            view.receive_advert(fact)
        else:
            view.receive_absence(fact)
    except IgnoreError:
        return False
    return True


def ignored(call: Callable[[], object]) -> str:
    with pytest.raises(IgnoreError) as caught:
        call()
    return caught.value.rule


# Adverts


@pytest.mark.parametrize("sequence", [4, 5])
def test_advert__ignore_unless_it_is_newer_than_the_one_we_have(sequence: int) -> None:
    view = filled(advert(1, 5))
    assert ignored(lambda: view.receive_advert(advert(1, sequence))) == "advert-sequence"
    assert view.sequences()[OTHER.peer_id] == 5


def test_advert__ignore_unless_there_is_room_for_one_more_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MAX_PEERS", 3)
    view = filled(num_peers=3)
    assert ignored(lambda: view.receive_advert(advert(3))) == "view-full"
    view.receive_advert(advert(1, 2))
    assert len(view.known()) == 3


def test_second_advert_of_one_sequence__changes_nothing() -> None:
    view = filled()
    assert ignored(lambda: view.receive_advert(advert(1, 1, leaving=True))) == "advert-sequence"
    assert view.is_live(OTHER.peer_id)


def test_goodbye__ends_a_peer_at_once_and_is_kept() -> None:
    view = filled(advert(1, 2, leaving=True))
    assert not view.is_live(OTHER.peer_id)
    assert OTHER.peer_id in view.known()
    assert not hear(view, advert(1, 1))


def test_expired_adverts__are_forgotten_with_their_doubts() -> None:
    view = filled(advert(1, 2, life_s=10), absence(2, 1, 2))
    assert view.forget_expired(NOW_S + 9) == []
    assert view.forget_expired(NOW_S + 10) == [OTHER.peer_id]
    assert (view.advert_of(OTHER.peer_id), view.advert_envelope(OTHER.peer_id)) == (None, None)
    assert view.doubts_about(OTHER.peer_id) == ()


# Absences


@pytest.mark.parametrize("sequence", [4, 6])
def test_absence__ignore_unless_it_is_about_the_advert_we_have(sequence: int) -> None:
    view = filled(advert(1, 5))
    assert ignored(lambda: view.receive_absence(absence(2, 1, sequence))) == "absence-advert"


def test_absence__ignore_of_a_peer_without_advert() -> None:
    assert ignored(lambda: filled(num_peers=3).receive_absence(absence(2, 9))) == "absence-advert"


def test_absence__ignore_unless_it_is_the_first_by_this_watcher() -> None:
    view = filled(absence(2, 1))
    assert ignored(lambda: view.receive_absence(absence(2, 1))) == "absence-seen"
    assert view.is_live(OTHER.peer_id)


def test_absence__ignore_unless_it_is_among_the_lowest_by_tag() -> None:
    subject = peer_id_to_bytes(OTHER.peer_id)
    watchers = [number for number in range(len(PEERS)) if number != 1]
    watchers.sort(
        key=lambda number: tagged_digest("iota-p2p/watcher/1", subject, peer_id_to_bytes(PEERS[number].peer_id))
    )
    lowest, highest = watchers[:MAX_ABSENCES], watchers[MAX_ABSENCES:]
    view = filled(*(absence(number, 1) for number in lowest))
    assert {ignored(lambda n=number: view.receive_absence(absence(n, 1))) for number in highest} == {"absence-seen"}  # type: ignore[misc]  # a default binds the loop's value
    other = filled(*(absence(number, 1) for number in (*highest, *lowest)))
    for under_test in (view, other):
        assert {word.signer for word in under_test.doubts_about(OTHER.peer_id)} == {
            PEERS[number].peer_id for number in lowest
        }


def test_quorum__and_not_one_word__ends_a_peer() -> None:
    view = filled(absence(2, 1))
    assert view.is_live(OTHER.peer_id)
    view.receive_absence(absence(3, 1))
    assert ABSENCE_QUORUM == 2
    assert not view.is_live(OTHER.peer_id)


def test_our_own_word__is_enough_for_us() -> None:
    assert not filled(absence(0, 1)).is_live(OTHER.peer_id)


def test_next_advert__refutes_every_absence() -> None:
    view = filled(absence(0, 1), absence(2, 1), absence(3, 1), advert(1, 2))
    assert view.is_live(OTHER.peer_id)
    assert view.doubts_about(OTHER.peer_id) == ()


# Who is watched


def test_watched__are_the_next_live_on_the_ring() -> None:
    view = filled()
    ring = sorted((peer.peer_id for peer in PEERS), key=ring_position)
    around = ring[ring.index(ME.peer_id) + 1 :] + ring[: ring.index(ME.peer_id)]
    assert list(view.watched()) == around[:NUM_WATCHED]
    first = next(number for number, peer in enumerate(PEERS) if peer.peer_id == around[0])
    view.receive_absence(absence(0, first))
    assert list(view.watched()) == around[1 : NUM_WATCHED + 1]


@pytest.mark.parametrize("num_peers", range(6))
def test_watched__are_all_others_of_a_small_swarm(num_peers: int) -> None:
    assert len(filled(num_peers=num_peers).watched()) == min(max(num_peers - 1, 0), NUM_WATCHED)


def test_everybody__is_watched_by_as_many() -> None:
    watched: list[PeerId] = []
    for peer in PEERS:
        view = View(peer.peer_id)
        for number in range(len(PEERS)):
            view.receive_advert(advert(number))
        watched += view.watched()
    assert sorted(watched) == sorted([peer.peer_id for peer in PEERS] * NUM_WATCHED)


# Order, and what is derived


numbers = st.integers(0, 11)
sequences = st.integers(1, 3)
facts = st.one_of(
    st.builds(advert, numbers, sequences),  # of one sequence only one advert, as honest peers sign
    st.builds(absence, numbers, numbers, sequences).filter(lambda word: word.signer != word.payload.peer_id),
)


@settings(max_examples=150)
@given(st.lists(facts, max_size=60), st.data())
def test_views__agree_once_they_heard_the_same__in_whatever_order(heard: list[Fact], data: Any) -> None:
    """Twice, because an absence that comes before its advert is ignored until an exchange brings it again."""
    views = []
    for order in (heard, data.draw(st.permutations(heard))):
        view = View(PEERS[-1].peer_id)
        for fact in (*order, *order):
            hear(view, fact)
        views.append(view)
    first, second = views
    assert set(first.live()) == set(second.live())
    assert first.sequences() == second.sequences()
    assert first.fingerprint == second.fingerprint


class ViewMachine(RuleBasedStateMachine):
    """Compares what the view keeps in step with what follows from everything it holds."""

    @initialize()
    def start(self) -> None:
        self.view = View(ME.peer_id)
        self.now_s = NOW_S
        self.latest: dict[PeerId, int] = {}

    @rule(number=numbers, sequence=sequences, leaving=st.booleans(), life_s=st.sampled_from([5, 60]))
    def hear_advert(self, number: int, sequence: int, leaving: bool, life_s: int) -> None:  # noqa: FBT001 - a rule's arguments are drawn by name
        hear(self.view, advert(number, sequence, leaving=leaving, life_s=life_s))

    @rule(watcher=numbers, subject=numbers, sequence=sequences)
    def hear_absence(self, watcher: int, subject: int, sequence: int) -> None:
        hear(self.view, absence(watcher, subject, sequence))

    @rule(after_s=st.integers(0, 10))
    def let_time_pass(self, after_s: int) -> None:
        self.now_s += after_s
        for peer_id in self.view.forget_expired(self.now_s):
            self.latest.pop(peer_id, None)

    @invariant()
    def derived_values_equal_a_recomputation(self) -> None:
        live, fingerprint = set(), 0
        for peer_id in self.view.known():
            found = self.view.advert_of(peer_id)
            assert found is not None
            watchers = {word.signer for word in self.view.doubts_about(peer_id)}
            if found.leaving or ME.peer_id in watchers or len(watchers) >= ABSENCE_QUORUM:
                continue
            live.add(peer_id)
            row = (peer_id_to_bytes(peer_id), found.sequence.to_bytes(8, "big"))
            fingerprint ^= int.from_bytes(tagged_digest("iota-p2p/view-entry/1", *row), "big")
        assert set(self.view.live()) == live
        assert self.view.fingerprint == fingerprint.to_bytes(32, "big")
        assert self.view._ring == sorted((ring_position(peer_id), peer_id) for peer_id in live)

    @invariant()
    def doubts_are_bounded_and_about_the_latest_advert(self) -> None:
        for peer_id in self.view.known():
            doubts = self.view.doubts_about(peer_id)
            found = self.view.advert_of(peer_id)
            assert found is not None
            assert len(doubts) <= MAX_ABSENCES
            assert all(word.payload.advert_sequence == found.sequence for word in doubts)

    @invariant()
    def sequences_only_grow_while_a_peer_is_known(self) -> None:
        for peer_id in self.view.known():
            found = self.view.advert_of(peer_id)
            assert found is not None
            assert found.sequence >= self.latest.get(peer_id, 0)
            self.latest[peer_id] = found.sequence


ViewMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestViewMachine = ViewMachine.TestCase
