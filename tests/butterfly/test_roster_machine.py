"""Rosters are made by simulated members: late, repeated and lost letters, deaths, and up to a third of liars."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.convener import convener_order
from iota_p2p_protocols.butterfly.fault_file import pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.butterfly.meeting import (
    Astray,
    Contributed,
    Countersigned,
    Patience,
    Phase,
    Proposed,
    Send,
    Tick,
)
from iota_p2p_protocols.butterfly.roster import (
    Proposal,
    Roster,
    certified,
    countersign,
    join_signatures,
    propose,
    quorum,
)
from iota_p2p_protocols.butterfly.roster_fault import make_roster_faults
from iota_p2p_protocols.butterfly.roster_machine import RULES, begin, step
from iota_p2p_protocols.errors import RemoteProtocolError
from tests.butterfly.meetings import Room, soon
from tests.butterfly.rosters import SEED, STAGE, contributed, contributions_of, proposal_of

CROWD = tuple(Identity.from_seed(digest(bytes([number]))) for number in range(50))
CONTRIBUTIONS = dict(zip((peer.peer_id for peer in CROWD), contributions_of(CROWD), strict=True))
SYBIL = Identity.from_seed(digest(b"sybil"))


def in_order(num_peers: int) -> list[Identity]:
    """Return some of the crowd in the order in which they convene."""
    by_id = {peer.peer_id: peer for peer in CROWD[:num_peers]}
    return [by_id[peer_id] for peer_id in convener_order(SEED, STAGE, list(by_id))]


def own(peer: Identity) -> Verified[Contribution]:
    return CONTRIBUTIONS[peer.peer_id]


def all_join(room: Room, honest: Sequence[Identity], everybody: Sequence[Identity], apart_s: float = 0.0) -> None:
    for peer in honest:
        room.join(peer, own(peer), everybody, room.rng.uniform(0, apart_s) if apart_s else 0.0)


def contribute(room: Room, peer: Identity, to: Sequence[Identity]) -> None:
    """Let somebody without a machine contribute."""
    room.send(peer.peer_id, Send("contribution", own(peer).envelope_bytes, ids(to)))


def ids(peers: Sequence[Identity]) -> tuple[PeerId, ...]:
    return tuple(peer.peer_id for peer in peers)


def agreed_members(room: Room) -> frozenset[PeerId]:
    """Return the members of the one roster that all living honest members ended with."""
    assert len(set(room.outcomes().values())) == 1
    certificate = next(meeting.certificate for meeting in room.meetings.values() if meeting.certificate is not None)
    return frozenset(certificate.members)


@pytest.mark.parametrize("num_peers", [1, 2, 3, 5, 8, 16, 50])
def test_members__agree_at_once_on_a_roster_of_all(num_peers: int) -> None:
    room, peers = Room(num_peers), in_order(num_peers)
    all_join(room, peers, peers)
    room.run_until_agreed(10)
    assert agreed_members(room) == frozenset(ids(peers))
    assert room.now_s < 0.8 or num_peers == 1  # four letters after each other at most, of up to 0.2 s
    assert room.num_letters <= num_peers * (num_peers + 3)
    assert {meeting.phase for meeting in room.meetings.values()} == {Phase.AGREED}
    assert not room.faults


@given(seed=st.integers(0, 2**32), num_peers=st.integers(1, 8))
def test_members__agree_whatever_the_order_of_letters(seed: int, num_peers: int) -> None:
    room, peers = Room(seed, twice=0.3), in_order(num_peers)
    all_join(room, peers, peers, apart_s=0.3)
    room.run(60)
    assert agreed_members(room) == frozenset(ids(peers))
    assert not room.faults


@given(seed=st.integers(0, 2**32), num_peers=st.integers(2, 8), lost=st.floats(0, 0.5))
def test_members__never_contradict_each_other_or_themselves_when_letters_are_lost_or_slow(
    seed: int, num_peers: int, lost: float
) -> None:
    room, peers = Room(seed, twice=0.2), in_order(num_peers)
    room.delay = lambda _, __, rng: None if rng.random() < lost else rng.expovariate(2.0)
    all_join(room, peers, peers, apart_s=2.0)
    if num_peers > 2:
        room.kill(peers[seed % num_peers].peer_id)
    room.run(120)
    assert not room.faults
    assert all(len(rosters) == 1 for rosters in room.signed.values())
    by_attempt: dict[tuple[str, int], Roster] = {}
    for meeting in room.meetings.values():
        if meeting.certificate is not None:
            roster = meeting.certificate.roster.payload
            assert by_attempt.setdefault((roster.convener, roster.attempt), roster) == roster


def test_convener__that_says_nothing_is_passed_over() -> None:
    peers = in_order(5)
    room = Room(1)
    all_join(room, peers[1:], peers)
    contribute(room, peers[0], peers[1:])
    room.run_until_agreed(60)
    assert agreed_members(room) == frozenset(ids(peers))  # it contributed, and that is all that counts
    assert room.now_s < 2


def test_convener__that_dies_is_replaced_before_its_time_is_up() -> None:
    peers = in_order(2)
    room = Room(1)
    all_join(room, peers, peers)
    room.run(0.01)
    room.kill(peers[0].peer_id)
    room.run_until_agreed(60)
    assert agreed_members(room) == {peers[1].peer_id}
    assert room.now_s < 1


def test_convener__that_dies_after_collecting_signatures_leaves_them_to_the_next_one() -> None:
    peers = in_order(4)
    rooms = [Room(3) for _ in range(2)]
    proposal = propose([own(peer) for peer in peers], 0, peers[0])
    for room in rooms:
        all_join(room, peers[1:], peers)
        contribute(room, peers[0], peers[1:])
        room.send(peers[0].peer_id, Send("roster", proposal.data, ids(peers[1:])))
        room.run_until_agreed(60)
        assert agreed_members(room) == frozenset(ids(peers))
    assert set(rooms[0].outcomes().values()) == {proposal.digest}  # nobody had to sign anew


def test_convener__that_leaves_somebody_out_is_passed_over() -> None:
    peers = in_order(5)
    room = Room(1)
    all_join(room, peers[1:], peers)
    contribute(room, peers[0], peers[1:])
    room.run(0.8)
    unfair = propose([own(peer) for peer in peers[:4]], 0, peers[0])
    room.send(peers[0].peer_id, Send("roster", unfair.data, ids(peers[1:])))
    room.run_until_agreed(60)
    assert agreed_members(room) == frozenset(ids(peers))
    assert all(meeting.certificate.digest != unfair.digest for meeting in room.meetings.values() if meeting.certificate)
    assert [letter.what for _, to, _, letter in room.heard_by_liars if to == peers[0].peer_id].count(
        "contribution"
    ) >= len(peers)  # it was told whom it had left out


def test_convener__that_had_missed_somebody_hears_of_it_and_proposes_again() -> None:
    peers = in_order(4)
    room = Room(1)
    away = (peers[3].peer_id, peers[0].peer_id)
    room.delay = lambda sender, to, rng: None if (sender, to) == away else soon(sender, to, rng)
    for peer in peers:
        room.join(peer, own(peer), peers, patience=Patience(gather_s=0.5, grace_s=0.1))
    room.run_until_agreed(60)
    assert agreed_members(room) == frozenset(ids(peers))
    certificate = room.meetings[peers[1].peer_id].certificate
    assert certificate is not None
    assert (certificate.roster.payload.convener, certificate.roster.payload.attempt) == (peers[0].peer_id, 1)


def test_latecomer__learns_that_it_is_left_out() -> None:
    peers = in_order(4)
    room = Room(1)
    all_join(room, peers[:3], peers[:3])
    room.run(1)
    room.join(peers[3], own(peers[3]), peers, at_s=1)
    room.run_until_agreed(5)
    assert agreed_members(room) == frozenset(ids(peers[:3]))
    assert room.meetings[peers[3].peer_id].phase == Phase.LEFT_OUT


def test_replicas_from_another_base__make_a_roster_of_their_own() -> None:
    peers = in_order(5)
    room = Room(1)
    for number, peer in enumerate(peers):
        base = digest(b"elsewhere") if number % 2 else digest(b"base")
        room.join(peer, contributed(peer, base_digest=base), peers)
    room.run_until_agreed(60)
    for number, peer in enumerate(peers):
        certificate = room.meetings[peer.peer_id].certificate
        assert certificate is not None
        assert frozenset(certificate.members) == frozenset(ids(peers[number % 2 :: 2]))


def test_silent_peer__does_not_hold_up_another_one_for_ever() -> None:
    peers = in_order(2)
    room = Room(1)
    all_join(room, peers[:1], peers)
    contribute(room, peers[1], peers[:1])
    room.run_until_agreed(60)
    assert agreed_members(room) == {peers[0].peer_id}
    assert room.now_s < 5


class Cabal:
    """Liars that sign everything, show different rosters to different members, and hold back what they have."""

    def __init__(self, room: Room, liars: Sequence[Identity], honest: Sequence[Identity]) -> None:
        self.room, self.liars, self.honest = room, liars, honest
        self.keys = {peer.peer_id: peer for peer in (*liars, SYBIL)}
        everybody = [own(peer) for peer in (*liars, *honest)]
        more = [*everybody, contributed(SYBIL)]
        pairs = [(propose(everybody, number, liars[0]), propose(more, number, liars[0])) for number in range(2)]
        self.rosters = [one for pair in pairs for one in pair]
        self.votes = {one.digest: [countersign(one, liar) for liar in liars[1:]] for one in self.rosters}

    def propose(self, roster: Proposal, to: Sequence[Identity]) -> None:
        self.room.send(self.liars[0].peer_id, Send("roster", roster.data, ids(to)))

    def listen(self) -> None:
        """Keep the signatures on our own rosters; sign everybody else's, and send that to somebody."""
        for _, to, sender, letter in self.room.heard_by_liars:
            event = Room.opened(letter, sender)
            if isinstance(event, Countersigned) and event.roster.digest in self.votes:
                self.votes[event.roster.digest].append(event.roster)
            if isinstance(event, Proposed) and to in event.proposal.members and self.room.rng.random() < 0.7:
                vote = countersign(event.proposal, self.keys[to])
                self.room.send(to, Send("countersignature", vote.envelope_bytes, (sender,)))
        self.room.heard_by_liars.clear()

    def release(self) -> None:
        """Show some members whatever has signatures enough by now."""
        for roster in self.rosters:
            joined = join_signatures(roster, self.votes[roster.digest])
            if len(joined.roster.signers) >= quorum(len(joined.members)):
                some = [peer for peer in self.honest if self.room.rng.random() < 0.5]
                self.room.send(self.liars[0].peer_id, Send("roster", joined.data, ids(some)))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), num_liars=st.integers(1, 3))
def test_liars__fewer_than_a_third_never_part_the_honest_or_have_one_accused(seed: int, num_liars: int) -> None:
    check_liars(seed, num_liars)


@pytest.mark.slow
@settings(max_examples=500)
@given(seed=st.integers(0, 2**32), num_liars=st.integers(1, 3))
def test_liars__fewer_than_a_third_never_part_the_honest_in_many_meetings(seed: int, num_liars: int) -> None:
    check_liars(seed, num_liars)


def check_liars(seed: int, num_liars: int) -> None:
    room = Room(seed, twice=0.1)
    rng = room.rng
    room.delay = lambda *_: rng.uniform(0.001, 0.15)
    peers = in_order(3 * num_liars + 1)
    liars = [peers[0], *rng.sample(peers[1:], num_liars - 1)]
    honest = [peer for peer in peers if peer not in liars]
    all_join(room, honest, peers)
    cabal = Cabal(room, liars, honest)
    for liar in liars:
        contribute(room, liar, honest)
    room.run(rng.uniform(0.2, 0.5))
    for number in (0, 2):
        some = [peer for peer in honest if rng.random() < 0.5]
        cabal.propose(cabal.rosters[number], some)
        cabal.propose(cabal.rosters[number + 1], [peer for peer in honest if peer not in some or rng.random() < 0.3])
    for _ in range(40):
        room.run(room.now_s + 0.1)
        cabal.listen()
        if rng.random() < 0.2:
            cabal.release()
    room.run(60)
    strays(room)
    assert len(set(room.outcomes().values())) == 1
    assert None not in room.outcomes().values()
    assert {verify_fault(fault).liar for fault in room.faults} <= set(ids(liars))
    assert all(len(rosters) == 1 for rosters in room.signed.values())


def strays(room: Room) -> None:
    """Let members hear of each other's rosters, as they do when they merge."""
    for one in tuple(room.meetings):
        for other in tuple(room.meetings):
            if room.outcomes()[one] != room.outcomes()[other]:
                room.tell(one, Astray(other))
    room.run(room.now_s + 10)


def test_two_rosters_of_one_attempt__convict_whoever_signed_both_and_nobody_else() -> None:
    peers = in_order(4)
    room = Room(1)
    all_join(room, peers[1:], peers)
    cabal = Cabal(room, peers[:1], peers[1:])
    contribute(room, peers[0], peers[1:])
    room.run(0.5)
    cabal.propose(cabal.rosters[0], peers[1:2])
    cabal.propose(cabal.rosters[1], peers[2:])
    room.run(60)
    assert {verify_fault(fault).liar for fault in room.faults} == {peers[0].peer_id}
    verdict = verify_fault(next(iter(room.faults)))
    assert (verdict.kind, verdict.stage) == ("roster", STAGE)
    assert agreed_members(room) >= frozenset(ids(peers))


def test_fault__refused_when_it_proves_nothing() -> None:
    peers = in_order(4)
    room = Room(1)
    rosters = Cabal(room, peers[:1], peers[1:]).rosters
    fault = make_roster_faults(rosters[0].roster, rosters[1].roster)
    assert len(fault) == 1
    assert not make_roster_faults(rosters[0].roster, rosters[2].roster)  # two attempts
    assert not make_roster_faults(rosters[0].roster, rosters[0].roster)
    for wrong in (fault[0].replace(b"roster", b"report", 1), fault[0][:-1], fault[0] + b"0"):
        with pytest.raises(RemoteProtocolError):
            verify_fault(wrong)
    fields, _ = unpack_fault(fault[0])
    with pytest.raises(RemoteProtocolError) as caught:
        verify_fault(pack_fault({**fields, "liar": peers[1].peer_id}))
    assert caught.value.rule == "fault-liar"


def test_certificate__of_the_later_convener_is_taken_whichever_comes_first() -> None:
    peers = in_order(4)
    early, late = (
        certified(join_signatures(one, [countersign(one, peer) for peer in peers]))
        for one in (propose([own(peer) for peer in peers], 0, convener) for convener in peers[:2])
    )
    for order in ((early, late), (late, early)):
        meeting, _ = begin(peers[3], SEED, own(peers[3]), frozenset(ids(peers)), now_s=0)
        for certificate in order:
            meeting, _ = step(meeting, Proposed(certificate, peers[0].peer_id), 1)
        assert meeting.certificate is not None
        assert meeting.certificate.digest == late.digest


def test_letters_about_something_else__change_nothing() -> None:
    peers = in_order(4)
    meeting, _ = begin(peers[3], SEED, own(peers[3]), frozenset(ids(peers)), now_s=0)
    for change in ({"epoch": 8}, {"stage": 2}, {"codec": "float32"}, {"num_values": 9}, {"run_id": bytes(32)}):
        other = contributed(peers[0], **change)
        assert step(meeting, Contributed(other, peers[0].peer_id), 1)[0].contributions.keys() == {peers[3].peer_id}
        certificate = certified(propose([other], 0, peers[0]))
        assert step(meeting, Proposed(certificate, peers[0].peer_id), 1) == (meeting, ())
    vote = proposal_of(peers).roster
    assert step(meeting, Countersigned(vote, peers[0].peer_id), 1)[1] == ()


def test_strangers__can_neither_crowd_out_nor_outvote_those_who_are_expected() -> None:
    peers, strangers = in_order(5), CROWD[10:50]
    room = Room(1)
    all_join(room, peers[1:], peers)
    for stranger in strangers:  # as passed on by a liar, before anybody else's arrives
        room.send(peers[0].peer_id, Send("contribution", own(stranger).envelope_bytes, ids(peers[1:])))
    contribute(room, peers[0], peers[1:])
    room.run(0.5)
    crowded = propose([own(one) for one in (*peers, *strangers)], 0, peers[0])
    room.send(peers[0].peer_id, Send("roster", crowded.data, ids(peers[1:])))
    room.run_until_agreed(60)
    members = agreed_members(room)
    assert members >= frozenset(ids(peers))
    assert len(members) <= len(peers) + 1
    assert not any(
        meeting.certificate.digest == crowded.digest for meeting in room.meetings.values() if meeting.certificate
    )


def test_rules__exist_for_every_phase_and_leave_one_that_is_over_alone() -> None:
    assert set(RULES) == set(Phase)
    meeting, _ = begin(CROWD[0], SEED, own(CROWD[0]), frozenset(), now_s=0)
    assert meeting.phase == Phase.AGREED
    assert step(meeting, Tick(), 1e9) == (meeting, ())
