from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, peer_id_to_bytes
from iota_p2p_protocols.butterfly.contribution import (
    Contribution,
    check_contribution,
    meeting_key,
    validate_contribution_gossip,
)
from iota_p2p_protocols.butterfly.convener import convener_order, convener_rank, passed_over
from iota_p2p_protocols.butterfly.roster import (
    MAX_ATTEMPTS,
    MAX_ROSTER_BYTES,
    Roster,
    certified,
    countersign,
    join_signatures,
    open_proposal,
    open_roster_certificate,
    pack_roster,
    propose,
    quorum,
    roster_of,
)
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import IgnoreError, LocalProtocolError, RemoteProtocolError
from iota_p2p_protocols.ids import CONTRIBUTIONS, MERGE
from iota_p2p_protocols.message import UINT63_MAX, seal_message
from tests.butterfly.rosters import (
    EPOCH,
    FOUR,
    SEED,
    STAGE,
    certificate_of,
    contributed,
    contribution,
    contributions_of,
    proposal_of,
)
from tests.core.members import NOW_S, PEERS, RUN

CROWD = tuple(Identity.from_seed(digest(bytes([number]))) for number in range(MAX_MEMBERS))


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        call()
    return caught.value.rule


def sealed(roster: Roster, by: Identity, contributions: tuple[Verified[Contribution], ...]) -> bytes:
    return pack_roster(seal_message(roster, by), contributions)


def ordered(peers: tuple[Identity, ...], **changes: Any) -> tuple[Verified[Contribution], ...]:
    return tuple(sorted(contributions_of(peers, **changes), key=lambda one: peer_id_to_bytes(one.signer)))


def test_two_thirds__are_so_many_that_two_quorums_share_an_honest_member() -> None:
    for members in range(1, MAX_MEMBERS + 1):
        liars = (members - 1) // 3
        assert 2 * quorum(members) > members + liars
        assert quorum(members) <= members - liars  # the honest ones are enough
    assert [quorum(members) for members in (1, 2, 3, 4, 5, 8, 16, 50)] == [1, 2, 2, 3, 4, 6, 11, 34]


def test_certificate__opens_by_itself_and_names_all_in_order() -> None:
    certificate = open_roster_certificate(certificate_of(FOUR).data)
    assert certificate.members == tuple(sorted((peer.peer_id for peer in FOUR), key=peer_id_to_bytes))
    assert [one.signer for one in certificate.contributions] == list(certificate.members)
    assert certificate.samples == (40,) * 4
    assert certificate.digest == proposal_of(FOUR).digest


def test_certificate__refused_when_less_than_two_thirds_signed() -> None:
    assert refusal(lambda: open_roster_certificate(proposal_of(FOUR, 0, FOUR[:2]).data)) == "roster-quorum"
    assert len(open_roster_certificate(proposal_of(FOUR, 0, FOUR[1:]).data).roster.signers) == 3


def test_certificate__of_a_lone_member_is_its_own_signature() -> None:
    assert certified(propose(contributions_of(FOUR[:1]), 0, FOUR[0])).members == (FOUR[0].peer_id,)


def test_roster__leaves_its_convener_nothing_to_choose() -> None:
    mine, again = (propose(contributions_of(order), 3, FOUR[0]) for order in (FOUR, FOUR[::-1]))
    assert mine.digest == again.digest
    for change in ({"sequence": 9}, {"issued_s": NOW_S + 1}, {"expires_s": NOW_S + 9}, {"epoch": 8}, {"attempt": 4}):
        forged = Roster.model_validate({**roster_of(contributions_of(FOUR), FOUR[0].peer_id, 3).model_dump(), **change})
        assert refusal(partial(open_proposal, sealed(forged, FOUR[0], ordered(FOUR)))) == "roster-fixed"


def test_proposal__refused_when_its_contributions_do_not_belong_together() -> None:
    roster = roster_of(contributions_of(FOUR), FOUR[0].peer_id, 0)
    good = ordered(FOUR)
    other = FOUR[[peer.peer_id for peer in FOUR].index(good[3].signer)]
    for change in ({"epoch": 8}, {"stage": 2}, {"codec": "float32"}, {"num_values": 3}, {"run_id": bytes(32)}):
        mixed = (*good[:3], contributed(other, **change))
        assert refusal(partial(open_proposal, sealed(roster, FOUR[0], mixed))) == "roster-alike"
    mixed = (*good[:3], contributed(other, base_digest=digest(b"elsewhere")))
    assert refusal(lambda: open_proposal(sealed(roster, FOUR[0], mixed))) == "roster-base"
    assert refusal(lambda: open_proposal(sealed(roster, FOUR[0], good[::-1]))) == "roster-order"
    assert refusal(lambda: open_proposal(sealed(roster, FOUR[0], good[:3]))) == "roster-fixed"
    assert refusal(lambda: open_proposal(sealed(roster, FOUR[0], ()))) == "roster-empty"
    assert refusal(lambda: open_proposal(sealed(roster, PEERS[9], good))) == "roster-signer"
    assert refusal(lambda: open_proposal(sealed(roster, FOUR[1], good))) == "roster-convener"


def test_roster__refused_when_its_table_is_out_of_order() -> None:
    fields = roster_of(contributions_of(FOUR), FOUR[0].peer_id, 0).model_dump()
    for change in (
        {"peers": fields["peers"][::-1]},
        {"peers": fields["peers"][:1] * 4},
        {"contributions": fields["contributions"][:3]},
        {"attempt": MAX_ATTEMPTS},
        {"convener": PEERS[9].peer_id},
        {"peers": (), "contributions": ()},
    ):
        assert refusal(partial(Roster.from_fields, {**fields, **change})) == "message-field"


def test_signatures__are_joined_whatever_their_order_and_number() -> None:
    proposal = proposal_of(FOUR)
    votes = [countersign(proposal, peer) for peer in FOUR]
    forward, backward = join_signatures(proposal, votes), join_signatures(proposal, votes[::-1] * 2)
    assert forward.data == backward.data == certificate_of(FOUR).data
    with pytest.raises(LocalProtocolError):
        countersign(proposal, PEERS[9])


def test_signature__on_another_roster_is_not_joined() -> None:
    other = countersign(proposal_of(FOUR, attempt=1), FOUR[1])
    assert refusal(lambda: join_signatures(proposal_of(FOUR), [other])) == "envelope-merge"


def test_largest_certificate__fits_its_bounds() -> None:
    largest = {
        "sequence": UINT63_MAX,
        "epoch": UINT63_MAX,
        "stage": 63,
        "codec": "bfloat16",
        "num_values": 2**30,
        "samples": 2**32,
        "issued_s": 2**40 - 3600,
        "expires_s": 2**40 - 3000,
    }
    proposal = propose(contributions_of(CROWD, **largest), MAX_ATTEMPTS - 1, CROWD[0])
    certificate = certified(join_signatures(proposal, [countersign(proposal, peer) for peer in CROWD]))
    assert all(len(one.envelope_bytes) <= CONTRIBUTIONS.max_bytes for one in certificate.contributions)
    assert len(certificate.data) < MAX_ROSTER_BYTES
    assert len(certificate.data) < 0.75 * MERGE.max_header_bytes  # other notes travel along
    assert open_roster_certificate(certificate.data).digest == certificate.digest


CERTIFIED = certificate_of(FOUR).data


@settings(max_examples=30)
@given(data=st.binary(max_size=64))
def test_certificate__any_bytes_are_refused_by_name(data: bytes) -> None:
    refusal(lambda: open_roster_certificate(data))


@settings(max_examples=50)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_certificate__with_one_bit_flipped_is_refused(at: int, bit: int) -> None:
    whole = CERTIFIED
    position = at % len(whole)
    flipped = whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :]
    assert refusal(lambda: open_roster_certificate(flipped))


def test_packed_roster__refused_when_it_holds_more() -> None:
    fields = canonical.decode(CERTIFIED, max_bytes=MAX_ROSTER_BYTES)
    assert isinstance(fields, dict)
    assert refusal(lambda: open_proposal(canonical.encode({**fields, "more": 1}))) == "message-field"


@pytest.mark.parametrize("change", [{"codec": "int9"}, {"num_values": 0}, {"samples": 0}, {"root": b"short"}])
def test_contribution__refused_when(change: dict[str, Any]) -> None:
    fields = contribution().model_dump()
    assert refusal(lambda: Contribution.from_fields({**fields, **change})) == "message-field"


def test_contribution__refused_when_it_is_no_vector_of_this_stage() -> None:
    check_contribution(contributed(FOUR[0]), codec="int8", num_values=100_000)
    for codec, num_values in (("int8", 99_999), ("float32", 100_000)):
        check = partial(check_contribution, contributed(FOUR[0]), codec=codec, num_values=num_values)
        assert refusal(check) == "contribution-shape"


def heard(ours: int) -> Verified[Contribution]:
    data = seal_message(contribution(), FOUR[0])
    return validate_contribution_gossip(data, FOUR[0].peer_id, run_id=RUN, epoch=ours, now_s=NOW_S)


def test_contribution_gossip__is_of_use_near_our_epoch() -> None:
    for ours in (EPOCH - 1, EPOCH, EPOCH + 1):
        assert heard(ours).payload == contribution()
    for ours in (EPOCH - 2, EPOCH + 2):
        with pytest.raises(IgnoreError) as caught:
            heard(ours)
        assert caught.value.rule == "contribution-epoch"


def test_convener__follows_from_rank_alone() -> None:
    ids = [peer.peer_id for peer in PEERS]
    order = convener_order(SEED, STAGE, ids)
    assert sorted(order) == sorted(ids)
    assert order == convener_order(SEED, STAGE, ids[::-1])
    assert convener_order(SEED, STAGE, order[3:]) == order[3:]  # whoever is left out, the others keep their order


def test_passed_over__are_those_whose_turn_came_before_the_convener() -> None:
    ids = [peer.peer_id for peer in PEERS]
    order = convener_order(SEED, STAGE, ids)
    assert passed_over(SEED, STAGE, ids, order[0]) == ()
    assert passed_over(SEED, STAGE, ids, order[2]) == order[:2]
    assert convener_rank(SEED, STAGE, order[0]) < convener_rank(SEED, STAGE, order[1])


def test_convener__differs_between_stages_and_epochs() -> None:
    ids = [peer.peer_id for peer in PEERS]
    firsts = {convener_order(seed, stage, ids)[0] for seed in (SEED, digest(b"next")) for stage in range(8)}
    assert len(firsts) > 4
    assert convener_order(SEED, 0, ids) != convener_order(SEED, 1, ids)


def test_meeting_key__is_of_one_run_epoch_and_stage() -> None:
    keys = {meeting_key(run, epoch, stage) for run in (RUN, bytes(32)) for epoch in (0, 1) for stage in (0, 1)}
    assert len(keys) == 8
