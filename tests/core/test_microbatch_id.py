from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_protocols.message import UINT63_MAX
from iota_p2p_protocols.microbatch import MicrobatchId, live_epochs
from tests.core.pathways import OTHER_RUN, PEERS, RUN, microbatch

COUNTS = st.integers(0, UINT63_MAX)
IDS = st.builds(MicrobatchId, epoch=COUNTS, source=st.sampled_from([peer.peer_id for peer in PEERS]), counter=COUNTS)


@given(first=IDS, second=IDS)
def test_digest__is_equal_exactly_for_equal_ids(first: MicrobatchId, second: MicrobatchId) -> None:
    assert (first.digest(RUN) == second.digest(RUN)) == (first == second)
    assert MicrobatchId.from_fields(first.to_fields()).digest(RUN) == first.digest(RUN)


def test_digest__differs_between_runs() -> None:
    assert microbatch().digest(RUN) != microbatch().digest(OTHER_RUN)


def test_live_epochs__are_the_current_and_the_one_before() -> None:
    assert [*live_epochs(7)] == [6, 7]
    assert [*live_epochs(0)] == [0]
