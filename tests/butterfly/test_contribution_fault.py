import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.contribution_fault import make_contribution_fault
from iota_p2p_protocols.butterfly.fault_file import pack_fault, unpack_fault
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.butterfly.reduce import reduce_block
from iota_p2p_protocols.errors import RemoteProtocolError
from tests.butterfly.gradients import vector
from tests.butterfly.merges import Merge

LENGTH = 3 * BLOCK_VALUES
INT8 = CODECS["int8"]
GOOD = INT8.encode(vector(LENGTH))
AT = INT8.block_bytes + 4 * 7  # the eighth scale of the second block
BAD = GOOD[:AT] + np.array([np.nan], dtype="<f4").tobytes() + GOOD[AT + 4 :]
MERGE = Merge(INT8, (GOOD, BAD, GOOD), (1, 1, 1), LENGTH)


def fault_of(member: int, block: int) -> bytes:
    proof = MERGE.commitments[member].prove_block(block)
    return make_contribution_fault(MERGE.contributions[member], block, MERGE.block(member, block), proof)


FAULT = fault_of(1, 1)


def test_fault__names_whoever_committed_to_it() -> None:
    verdict = verify_fault(FAULT)
    assert (verdict.liar, verdict.kind) == (MERGE.identities[1].peer_id, "contribution")
    assert "block 1" in verdict.reason


def test_refused_member__is_the_one_whose_fault_holds() -> None:
    reduced = reduce_block([MERGE.block(member, 1) for member in range(3)], MERGE.samples, INT8, BLOCK_VALUES)
    assert reduced.refused == (1,)


@pytest.mark.parametrize(("member", "block"), [(0, 1), (1, 0), (1, 2)])
def test_good_block__is_no_fault(member: int, block: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        fault_of(member, block)
    assert caught.value.rule == "fault-decodes"


def test_bad_block__cannot_be_put_on_somebody_else() -> None:
    header, blocks = unpack_fault(FAULT)
    for changes in ({"contribution": MERGE.contributions[0].envelope_bytes}, {"block": 0}):
        with pytest.raises(RemoteProtocolError) as caught:
            verify_fault(pack_fault({**header, **changes}, [bytes(blocks)]))
        assert caught.value.rule == "merkle-inclusion"


@pytest.mark.parametrize(("block", "rule"), [(3, "block-index"), (-1, "message-field")])
def test_fault__refused_when_there_is_no_such_block(block: int, rule: str) -> None:
    header, blocks = unpack_fault(FAULT)
    with pytest.raises(RemoteProtocolError) as caught:
        verify_fault(pack_fault({**header, "block": block}, [bytes(blocks)]))
    assert caught.value.rule == rule


@settings(max_examples=60)
@given(st.integers(0, len(FAULT) - 1), st.integers(1, 255))
def test_any_changed_byte__breaks_the_proof(place: int, change: int) -> None:
    broken = bytearray(FAULT)
    broken[place] ^= change
    with pytest.raises(RemoteProtocolError):
        verify_fault(bytes(broken))
