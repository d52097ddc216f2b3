from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified, merge_signatures
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.merge_certificate import (
    Merge,
    check_merge,
    merge_of,
    open_merge_certificate,
    settled_digest,
    weight,
)
from iota_p2p_protocols.butterfly.reducer_report import MAX_SHARDS, ShardClaim
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS, draw_shard_map
from iota_p2p_protocols.butterfly.vote import join_votes
from iota_p2p_protocols.errors import LocalProtocolError, RemoteProtocolError
from iota_p2p_protocols.ids import MERGES
from iota_p2p_protocols.message import UINT63_MAX, open_signed, seal_message
from tests.butterfly.rosters import FOUR, certificate_of
from tests.core.members import PEERS

CERTIFICATE = certificate_of(FOUR)
SHARDS = draw_shard_map(CERTIFICATE.digest, 4, 7)
SETTLED = [ShardClaim(shard=shard.index, digest=digest(bytes([shard.index]))) for shard in SHARDS.shards]
THETA = digest(b"theta")


def merged(theta: bytes = THETA, **changes: Any) -> Merge:
    merge = merge_of(CERTIFICATE, SHARDS, SETTLED, theta_digest=digest(theta))
    return Merge.model_validate({**merge.model_dump(), **changes})


def signed(merge: Merge, *by: Identity) -> Verified[Merge]:
    return open_signed(seal_message(merge, *by), Merge)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        call()
    return caught.value.rule


def test_members__that_came_to_one_result_have_signed_one_certificate() -> None:
    votes = [signed(merged(), peer) for peer in FOUR]
    assert len({vote.digest for vote in votes}) == 1
    certificate = join_votes(votes[1:], Merge)
    assert certificate is not None
    assert len(certificate.signers) == 3
    assert open_merge_certificate(certificate.envelope_bytes).payload == merged()
    check_merge(certificate.payload, CERTIFICATE)


def test_certificate__takes_two_thirds_on_one_result() -> None:
    votes = [signed(merged(), peer) for peer in FOUR[:2]] + [signed(merged(b"other"), peer) for peer in FOUR[2:]]
    assert join_votes(votes, Merge) is None
    assert join_votes([], Merge) is None
    assert join_votes([*votes, signed(merged(), FOUR[3])], Merge) is not None  # and the liar's other vote is no matter


def test_certificate__refused_when_signatures_are_missing_or_not_of_members() -> None:
    assert refusal(lambda: open_merge_certificate(signed(merged(), *FOUR[:2]).envelope_bytes)) == "merge-quorum"
    assert refusal(lambda: open_merge_certificate(signed(merged(), *FOUR, PEERS[9]).envelope_bytes)) == "merge-signer"
    assert join_votes([signed(merged(), *FOUR[:2]), signed(merged(), PEERS[9])], Merge) is None


def test_lost_shards__are_those_with_blocks_and_without_a_result() -> None:
    settled = [None if claim.shard in (1, 3) else claim for claim in SETTLED]
    merge = merge_of(CERTIFICATE, SHARDS, settled, theta_digest=THETA)
    assert merge.lost == (1, 3)
    assert merge.shards == settled_digest(settled) != settled_digest(SETTLED)
    few = draw_shard_map(CERTIFICATE.digest, 4, 2)
    assert merge_of(CERTIFICATE, few, [None] * 6, theta_digest=THETA).lost == (0, 1)
    with pytest.raises(LocalProtocolError):
        merge_of(CERTIFICATE, SHARDS, SETTLED[:5], theta_digest=THETA)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"roster": digest(b"?")}, "merge-roster"),
        ({"samples": 1}, "merge-roster"),
        ({"stage": 2}, "merge-roster"),
        ({"base_digest": digest(b"?")}, "merge-base"),
    ],
)
def test_result__refused_when_it_is_of_another_roster(change: dict[str, Any], rule: str) -> None:
    assert refusal(lambda: check_merge(merged(**change), CERTIFICATE)) == rule


@pytest.mark.parametrize("change", [{"lost": (2, 1)}, {"lost": (1, 1)}, {"peers": ()}, {"lost": (MAX_SHARDS,)}])
def test_result__refused_when_its_lists_are_out_of_order(change: dict[str, Any]) -> None:
    assert refusal(lambda: Merge.from_fields({**merged().model_dump(), **change})) == "message-field"


def test_weight__puts_the_later_then_the_larger_then_the_harder_working_first() -> None:
    def weighed(**changes: Any) -> Any:
        return weight(signed(merged(**changes), *FOUR))

    ids = merged().peers
    rising = [
        weighed(peers=ids[:2], samples=999),
        weighed(samples=9),
        weighed(samples=10),
        weighed(epoch=8, peers=ids[:1]),
    ]
    assert rising == sorted(rising)
    assert weighed() != weighed(theta=b"other")


@settings(max_examples=50)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_certificate__with_one_bit_flipped_is_refused(at: int, bit: int) -> None:
    whole = WHOLE
    position = at % len(whole)
    flipped = whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :]
    assert refusal(lambda: open_merge_certificate(flipped))


WHOLE = signed(merged(), *FOUR).envelope_bytes


def test_largest_certificate__fits_its_bounds() -> None:
    crowd = [Identity.from_seed(digest(bytes([number]))) for number in range(MAX_MEMBERS)]
    certificate = certificate_of(crowd)
    drawn = draw_shard_map(certificate.digest, MAX_MEMBERS, 50_000)
    merge = merge_of(certificate, drawn, [None] * MAX_SHARDS, theta_digest=THETA)
    largest = Merge.model_validate({**merge.model_dump(), "epoch": UINT63_MAX, "sequence": UINT63_MAX, "stage": 63})
    data = merge_signatures([seal_message(largest, peer) for peer in crowd])
    assert len(open_merge_certificate(data).signers) == MAX_MEMBERS
    assert len(data) <= MERGES.max_bytes
