from typing import Any

import pytest

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim, check_reducer_report
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS, draw_shard_map
from iota_p2p_protocols.errors import RemoteProtocolError
from iota_p2p_protocols.message import UINT63_MAX
from tests.butterfly.reports import ROSTER, TRUTH, honest, report, signed
from tests.core.members import PEERS

MEMBERS = tuple(peer.peer_id for peer in PEERS[:4])
MAP = draw_shard_map(ROSTER, 4, 60)
OWN = [shard.index for shard in MAP.of(2)]
FOREIGN = next(shard.index for shard in MAP.shards if 2 not in shard.pair)


def claim(shard: int, **changes: Any) -> ShardClaim:
    return ShardClaim.model_validate({"shard": shard, "digest": TRUTH, **changes})


def check(said: ReducerReport, signer: int = 2) -> int:
    return check_reducer_report(signed(said, PEERS[signer]), roster=ROSTER, members=MEMBERS, shard_map=MAP)


def test_report__of_all_own_shards_or_some_is_taken() -> None:
    for claims in (tuple(map(claim, OWN)), (claim(OWN[1], missing=(0, 3)),), ()):
        assert check(report(claims)) == 2


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        (report((), roster=digest(b"another")), "report-roster"),
        (report((claim(OWN[1]), claim(OWN[0]))), "report-order"),
        (report((claim(OWN[0]), claim(OWN[0]))), "report-order"),
        (report((claim(FOREIGN),)), "report-shard"),
        (report((claim(400),)), "report-shard"),
        (report((claim(OWN[0], missing=(3, 0)),)), "report-missing"),
        (report((claim(OWN[0], missing=(0, 0)),)), "report-missing"),
        (report((claim(OWN[0], missing=(2,)),)), "report-missing"),
        (report((claim(OWN[0], missing=(4,)),)), "report-missing"),
    ],
)
def test_report__refused_when(said: ReducerReport, rule: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check(said)
    assert caught.value.rule == rule


def test_report__refused_when_a_stranger_signed_it() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check(report(()), signer=5)
    assert caught.value.rule == "report-signer"


def test_report__refused_when_its_shard_has_no_blocks() -> None:
    small = draw_shard_map(ROSTER, 4, 1)
    empty = next(shard.index for shard in small.of(2) if not shard.blocks)
    verified = signed(report((claim(empty),)), PEERS[2])
    with pytest.raises(RemoteProtocolError) as caught:
        check_reducer_report(verified, roster=ROSTER, members=MEMBERS, shard_map=small)
    assert caught.value.rule == "report-shard"


def test_longest_report__fits_its_domain() -> None:
    drawn = draw_shard_map(ROSTER, MAX_MEMBERS, 10_000)
    longest = tuple(claim(shard.index, missing=tuple(range(1, MAX_MEMBERS))) for shard in drawn.of(0))
    said = report(longest, epoch=UINT63_MAX, sequence=UINT63_MAX, stage=63)
    assert len(signed(said, PEERS[0]).payload_bytes) <= ReducerReport.domain.max_payload_bytes


def test_claim_on__finds_it_or_nothing() -> None:
    said = report(tuple(honest(2, shard) for shard in MAP.of(2)))
    assert said.claim_on(OWN[0]) == claim(OWN[0])
    assert said.claim_on(FOREIGN) is None
