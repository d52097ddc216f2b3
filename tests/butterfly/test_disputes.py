"""Whole merges with liars, deaths and missing blocks: who can be proved guilty of what, and what everybody takes."""

from random import Random

import numpy as np
import pytest

from iota_p2p_protocols.butterfly.agreement import agreement_matrix, disputed, settle_all
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.butterfly.reducer_fault import make_reducer_fault
from iota_p2p_protocols.butterfly.reducer_report import check_reducer_report
from iota_p2p_protocols.errors import RemoteProtocolError
from tests.butterfly.gradients import vector
from tests.butterfly.merges import Merge, Tamper, flipped, merge_of, truth


def accused(merge: Merge, member: int, tamper: Tamper, missing: tuple[int, ...], block: int) -> bool:
    """Return whether somebody can prove that a member's result of a block is wrong."""
    try:
        fault = make_reducer_fault(
            merge.certificate,
            merge.report(member, tamper, missing),
            block,
            merge.inputs(block, missing),
            merge.claimed(block, tamper, missing),
        )
    except RemoteProtocolError as error:
        if error.rule != "fault-result":
            raise
        return False
    assert verify_fault(fault).liar == merge.identities[member].peer_id
    return True


def live_through(seed: int) -> None:
    """Run one merge; check that liars are named where they are caught, and nobody else ever is."""
    rng = Random(seed)  # noqa: S311 - a simulation
    members = rng.choice([2, 3, 4, 5])
    values = [vector(40, rng.randrange(1000)) * np.float32(rng.choice([1, 1, 1, 50, -1])) for _ in range(members)]
    merge = merge_of(rng.choice(["float32", "int8", "top-k"]), values, [rng.randint(1, 30) for _ in values])
    liars = {member for member in range(members) if rng.random() < 0.3}
    (shard,) = (shard for shard in merge.shard_map.shards if shard.blocks)  # 40 values are one block
    said, named = {}, set()
    missing = {
        member: tuple(other for other in range(members) if other != member and rng.random() < 0.2)
        for member in range(members)
    }
    for member in shard.reducers:
        if rng.random() < 0.1:
            continue  # it dies before it reports
        tamper = flipped if member in liars else truth
        report = merge.report(member, tamper, missing[member])
        check_reducer_report(
            report, roster=merge.certificate.digest, members=merge.certificate.members, shard_map=merge.shard_map
        )
        said[member] = report.payload
    for suspect in disputed(merge.shard_map, said):
        named |= {
            member
            for member in suspect.reducers
            if accused(merge, member, flipped if member in liars else truth, missing[member], 0)
        }
        assert named == liars & set(suspect.reducers)
    assert named <= liars
    taken = settle_all(merge.shard_map, said, named)[shard.index]
    honest = set(said) - liars
    if honest and disputed(merge.shard_map, said):
        assert taken is not None
        assert taken.digest == merge.results(shard, truth, taken.missing).root
    agreement_matrix(merge.shard_map, said)


def test_merges__name_liars_only() -> None:
    for seed in range(60):
        live_through(seed)


@pytest.mark.slow
def test_ten_thousand_merges__accuse_no_honest_member() -> None:
    for seed in range(10_000):
        live_through(seed)
