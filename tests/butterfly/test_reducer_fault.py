from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.fault_file import MAX_FAULT_BYTES, MAX_HEADER_BYTES, pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.butterfly.reducer_fault import ProvedBlock, make_reducer_fault
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport
from iota_p2p_protocols.butterfly.roster import MAX_ROSTER_BYTES, propose
from iota_p2p_protocols.errors import RemoteProtocolError
from iota_p2p_protocols.message import seal_message
from tests.butterfly.gradients import vector
from tests.butterfly.merges import Merge, flipped, merge_of
from tests.core.members import PEERS, RUN

LENGTH = 12 * BLOCK_VALUES + 100
SAMPLES = (3, 1, 4, 1)
MERGE = merge_of("top-k", [vector(LENGTH, seed) for seed in range(4)], SAMPLES)
LIAR = 2
BLOCK = next(index for index in range(12) if LIAR in MERGE.shard_of(index).pair)


def fault_of(merge: Merge, liar: int, block: int, missing: tuple[int, ...] = ()) -> bytes:
    return make_reducer_fault(
        merge.certificate,
        merge.report(liar, flipped, missing),
        block,
        merge.inputs(block, missing),
        merge.claimed(block, flipped, missing),
    )


FAULT = fault_of(MERGE, LIAR, BLOCK)


def rule_of(data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_fault(data)
    return caught.value.rule


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_fault__names_whoever_signed_a_wrong_result(codec: str, members: int) -> None:
    merge = merge_of(codec, [vector(BLOCK_VALUES + 100, seed) for seed in range(members)], SAMPLES[:1] * members)
    for block in range(2):
        for liar in merge.shard_of(block).reducers:
            verdict = verify_fault(fault_of(merge, liar, block))
            assert (verdict.liar, verdict.kind) == (merge.identities[liar].peer_id, "reducer")
            assert verdict.run_id == RUN


def test_fault__needs_no_blocks_of_missing_members() -> None:
    absent = tuple(member for member in range(4) if member not in MERGE.shard_of(BLOCK).pair)
    verdict = verify_fault(fault_of(MERGE, LIAR, BLOCK, absent))
    assert verdict.liar == MERGE.identities[LIAR].peer_id


def test_fault__of_the_shorter_last_block_holds() -> None:
    liar = MERGE.shard_of(12).pair[0]
    assert verify_fault(fault_of(MERGE, liar, 12)).liar == MERGE.identities[liar].peer_id


def test_honest_reducer__cannot_be_accused() -> None:
    for block in range(13):
        for member in MERGE.shard_of(block).reducers:
            with pytest.raises(RemoteProtocolError) as caught:
                make_reducer_fault(
                    MERGE.certificate, MERGE.report(member), block, MERGE.inputs(block), MERGE.claimed(block)
                )
            assert caught.value.rule == "fault-result"


def test_fault__refused_when_it_leaves_a_member_out_or_brings_one_too_many() -> None:
    """An accuser cannot choose the inputs: they are those of the claim."""
    inputs = MERGE.inputs(BLOCK)
    said, claimed = MERGE.report(LIAR), MERGE.claimed(BLOCK)
    with pytest.raises(RemoteProtocolError) as caught:
        make_reducer_fault(MERGE.certificate, said, BLOCK, {m: inputs[m] for m in range(3)}, claimed)
    assert caught.value.rule == "fault-proofs"
    absent = tuple(member for member in range(4) if member not in MERGE.shard_of(BLOCK).pair)[:1]
    with pytest.raises(RemoteProtocolError) as caught:
        make_reducer_fault(MERGE.certificate, MERGE.report(LIAR, missing=absent), BLOCK, inputs, claimed)
    assert caught.value.rule == "fault-proofs"


def test_fault__refused_when_an_input_is_not_the_committed_one() -> None:
    inputs = MERGE.inputs(BLOCK)
    forged = {**inputs, 0: ProvedBlock(flipped(0, inputs[0].data), inputs[0].proof)}
    swapped = {**inputs, 0: inputs[1], 1: inputs[0]}
    for given_ in (forged, swapped):
        with pytest.raises(RemoteProtocolError) as caught:
            make_reducer_fault(MERGE.certificate, MERGE.report(LIAR), BLOCK, given_, MERGE.claimed(BLOCK))
        assert caught.value.rule == "merkle-inclusion"


def test_fault__refused_when_the_reducer_did_not_sign_the_result() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        make_reducer_fault(
            MERGE.certificate, MERGE.report(LIAR), BLOCK, MERGE.inputs(BLOCK), MERGE.claimed(BLOCK, flipped)
        )
    assert caught.value.rule == "merkle-inclusion"


def test_fault__refused_when_the_report_is_about_something_else() -> None:
    foreign = next(index for index in range(12) if LIAR not in MERGE.shard_of(index).pair)
    said = MERGE.report(LIAR, flipped)

    def resigned(**changes: Any) -> bytes:
        message = said.payload.model_copy(update=changes)
        return with_header(report=seal_message(message, MERGE.identities[LIAR]))

    assert rule_of(with_header(block=foreign)) == "fault-claim"
    assert rule_of(with_header(block=600)) == "fault-claim"
    assert rule_of(resigned(epoch=said.payload.epoch + 1)) == "fault-same"
    assert rule_of(resigned(stage=said.payload.stage + 1)) == "fault-same"
    assert rule_of(resigned(roster=digest(b"another"))) == "report-roster"
    assert rule_of(with_header(report=seal_message(said.payload, PEERS[9]))) == "report-signer"


def with_header(**changes: Any) -> bytes:
    header, blocks = unpack_fault(FAULT)
    return pack_fault({**header, **changes}, [bytes(blocks)])


def test_fault__refused_when_too_few_signed_the_roster() -> None:
    proposal = propose(MERGE.contributions, 0, MERGE.identities[0])
    assert rule_of(with_header(certificate=proposal.data)) == "roster-quorum"


def test_fault__refused_when_bytes_follow_or_lack() -> None:
    header, blocks = unpack_fault(FAULT)
    assert rule_of(FAULT + b"\x00") == "fault-blocks"
    assert rule_of(pack_fault(header, [bytes(blocks[:-1])])) == "fault-blocks"


@settings(max_examples=60)
@given(st.integers(0, len(FAULT) - 1), st.integers(1, 255))
def test_any_changed_byte__breaks_the_proof(place: int, change: int) -> None:
    """Every byte is covered by somebody's signature, or says where the parts are."""
    broken = bytearray(FAULT)
    broken[place] ^= change
    rule_of(bytes(broken))


def test_largest_fault__fits() -> None:
    proofs = 65 * (16 * 34 + 3)
    assert MAX_ROSTER_BYTES + ReducerReport.domain.max_payload_bytes + 8192 + proofs + 200 <= MAX_HEADER_BYTES
    assert MAX_FAULT_BYTES < 5 << 20
