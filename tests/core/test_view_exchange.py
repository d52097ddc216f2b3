"""View exchange: two views become equal, nothing a partner sends is believed or unbounded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import ADVERT
from iota_p2p_crypto.envelope import domain_of
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_to_bytes
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.errors import IgnoreError, MalformedError, RemoteProtocolError
from iota_p2p_protocols.ids import ABSENCES, ADVERTS, VIEW
from iota_p2p_protocols.message import Message, open_signed
from iota_p2p_protocols.view import MAX_ABSENCES, MAX_PEERS, View
from iota_p2p_protocols.view_exchange import (
    BATCH_BYTES,
    MAX_WANTED,
    ROW_BYTES,
    Compare,
    Compared,
    Swap,
    pack_doubts,
    pack_entries,
    pack_summary,
    plan_swap,
    unpack_entries,
    unpack_summary,
    wanted_peers,
)
from tests.core.members import PEERS, absence_by, advert_of, opened_advert


def view_of(me: Identity, *envelopes: bytes) -> View:
    view = View(me.peer_id)
    take(view, envelopes)
    return view


def take(view: View, envelopes: Any) -> None:
    """Take facts as the peer does: adverts first, what is no news passed over."""
    for data in sorted(envelopes, key=lambda data: domain_of(data) != ADVERT):
        try:
            if domain_of(data) == ADVERT:
                view.receive_advert(open_signed(data, Advert))
            else:
                view.receive_absence(open_signed(data, Absence))
        except IgnoreError:
            pass


def exchange(caller: View, callee: View) -> None:
    """Run one exchange, every message through its bytes."""
    if caller.fingerprint == callee.fingerprint:
        return
    swap, entries = plan_swap(caller, unpack_summary(pack_summary(callee)))
    wanted = wanted_peers(Swap.from_fields(canonical.decode(canonical.encode(swap.to_fields()))))
    take(callee, unpack_entries(entries))
    take(caller, unpack_entries(pack_entries(callee, wanted, wanted)))


# Two views become equal


adverts = st.builds(advert_of, st.sampled_from(PEERS[:8]), st.integers(1, 3))


@given(st.lists(adverts, max_size=20), st.lists(adverts, max_size=20))
def test_exchange__makes_two_views_of_adverts_equal(ours: list[bytes], theirs: list[bytes]) -> None:
    caller, callee = view_of(PEERS[14], *ours), view_of(PEERS[15], *theirs)
    exchange(caller, callee)
    assert caller.fingerprint == callee.fingerprint
    assert caller.sequences() == callee.sequences()


@pytest.mark.parametrize("asks", ["who knows", "who missed it"])
def test_exchange__passes_on_absences__whoever_asks(asks: str) -> None:
    both = [advert_of(peer) for peer in PEERS[:4]]
    gone = [absence_by(PEERS[1], PEERS[0]), absence_by(PEERS[2], PEERS[0])]
    knows, misses = view_of(PEERS[2], *both, *gone), view_of(PEERS[3], *both)
    exchange(*((knows, misses) if asks == "who knows" else (misses, knows)))
    assert not misses.is_live(PEERS[0].peer_id)
    assert knows.fingerprint == misses.fingerprint


@pytest.mark.parametrize("asks", ["who knows", "who missed it"])
def test_exchange__passes_on_the_goodbye_that_gossip_missed__whoever_asks(asks: str) -> None:
    both = [advert_of(peer) for peer in PEERS[:3]]
    knows = view_of(PEERS[1], *both, advert_of(PEERS[0], 2, leaving=True))
    misses = view_of(PEERS[2], *both)
    exchange(*((knows, misses) if asks == "who knows" else (misses, knows)))
    assert not misses.is_live(PEERS[0].peer_id)
    assert knows.fingerprint == misses.fingerprint


def test_doubts__are_those_about_the_partner_only() -> None:
    both = [advert_of(peer) for peer in PEERS[:4]]
    view = view_of(PEERS[3], *both, absence_by(PEERS[1], PEERS[0]), absence_by(PEERS[0], PEERS[1]))
    assert pack_doubts(view, PEERS[0].peer_id) == (absence_by(PEERS[1], PEERS[0]),)
    assert pack_doubts(view, PEERS[2].peer_id) == ()


# Bounds


class Crowd(View):
    """A view of more peers than could be made quickly, each with the largest envelope there is."""

    def sequences(self) -> dict[PeerId, int]:
        return {}

    def advert_envelope(self, peer_id: PeerId) -> bytes | None:
        del peer_id
        return bytes(ADVERTS.max_bytes)


def test_entries__stop_in_time_to_fit_a_message() -> None:
    packed = pack_entries(Crowd(PEERS[0].peer_id), [PEERS[1].peer_id] * MAX_WANTED, ())
    assert BATCH_BYTES < len(packed) <= VIEW.max_payload_bytes
    assert unpack_entries(packed)


def test_plan__asks_for_so_many_peers_at_once() -> None:
    theirs = {PeerId(Identity.from_seed(number.to_bytes(32, "big")).peer_id): 1 for number in range(MAX_WANTED + 1)}
    swap, entries = plan_swap(Crowd(PEERS[0].peer_id), theirs)
    assert len(swap.wanted) == MAX_WANTED
    assert len(canonical.encode(swap.to_fields())) <= VIEW.max_header_bytes
    assert unpack_entries(entries) == ()


def test_largest_summary_and_doubts__fit_their_messages() -> None:
    doubts = (bytes(ABSENCES.max_bytes),) * MAX_ABSENCES
    assert VIEW.max_payload_bytes >= MAX_PEERS * ROW_BYTES
    for message in (Compare(fingerprint=bytes(32), doubts=doubts), Compared(same=False, doubts=doubts)):
        assert len(canonical.encode(message.to_fields())) <= VIEW.max_header_bytes


# What a partner may send


def test_summary__comes_back_as_it_was_packed() -> None:
    view = view_of(PEERS[0], *(advert_of(peer, number + 1) for number, peer in enumerate(PEERS)))
    assert unpack_summary(pack_summary(view)) == {peer.peer_id: number + 1 for number, peer in enumerate(PEERS)}


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (bytes(ROW_BYTES - 1), "view-summary"),
        (bytes(ROW_BYTES + 1), "view-summary"),
        (bytes(ROW_BYTES * (MAX_PEERS + 1)), "view-summary"),
        (bytes(ROW_BYTES), "peer-id"),
    ],
)
def test_summary__is_refused_by_name(data: bytes, rule: str) -> None:
    with pytest.raises(MalformedError) as caught:
        unpack_summary(data)
    assert caught.value.rule == rule


@pytest.mark.parametrize("value", [None, {}, "a", ("a",), (b"a", None), ((),)], ids=repr)
def test_entries__are_refused_unless_they_are_a_list_of_envelopes(value: Any) -> None:
    with pytest.raises(MalformedError) as caught:
        unpack_entries(canonical.encode(value))
    assert caught.value.rule == "view-entries"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Compare, {"fingerprint": bytes(31)}),
        (Compare, {"fingerprint": bytes(32), "doubts": (b"",) * (MAX_ABSENCES + 1)}),
        (Compare, {"fingerprint": bytes(32), "doubts": (bytes(ABSENCES.max_bytes + 1),)}),
        (Compared, {"same": 1}),
        (Compared, {"same": True, "doubts": (b"",) * (MAX_ABSENCES + 1)}),
        (Swap, {"wanted": (bytes(37),)}),
        (Swap, {"wanted": (peer_id_to_bytes(PEERS[0].peer_id),) * (MAX_WANTED + 1)}),
        (Swap, {}),
    ],
)
def test_header__is_refused_when_it_is_out_of_range(kind: type[Message], fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        kind.from_fields(fields)
    assert caught.value.rule == "message-field"


def test_wanted__is_refused_when_it_names_no_peer() -> None:
    with pytest.raises(MalformedError) as caught:
        wanted_peers(Swap(wanted=(bytes(38),)))
    assert caught.value.rule == "peer-id"


rows = st.binary(min_size=ROW_BYTES, max_size=ROW_BYTES)


@given(st.one_of(st.binary(max_size=300), st.lists(rows, max_size=3).map(b"".join)))
def test_any_bytes_as_summary_or_entries__are_taken_or_refused_by_name(data: bytes) -> None:
    for unpack in (unpack_summary, unpack_entries):
        try:
            unpack(data)
        except RemoteProtocolError as error:
            assert error.rule  # noqa: PT017 - any rule will do


values = (
    st.none() | st.booleans() | st.integers() | st.binary(max_size=40) | st.lists(st.binary(max_size=40)).map(tuple)
)


@given(st.dictionaries(st.sampled_from(["doubts", "fingerprint", "same", "wanted"]), values))
def test_any_header__is_taken_or_refused_by_name(fields: dict[str, Any]) -> None:
    for kind in (Compare, Compared, Swap):
        try:
            message = kind.from_fields(fields)
            if isinstance(message, Swap):
                wanted_peers(message)
        except RemoteProtocolError as error:
            assert error.rule  # noqa: PT017 - any rule will do


@given(st.dictionaries(st.sampled_from([peer.peer_id for peer in PEERS]), st.integers(0, 2**64 - 1)))
def test_any_summary__is_answered_within_bounds(theirs: dict[PeerId, int]) -> None:
    view = View(PEERS[0].peer_id)
    for number, peer in enumerate(PEERS[:8]):
        view.receive_advert(opened_advert(peer, number + 1))
    swap, entries = plan_swap(view, theirs)
    assert len(wanted_peers(swap)) <= MAX_WANTED
    assert len(entries) <= VIEW.max_payload_bytes
