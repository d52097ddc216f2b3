import pytest

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.errors import IgnoreError, RejectError
from iota_p2p_protocols.ids import PROGRESS as TOPIC
from iota_p2p_protocols.message import UINT63_MAX, seal_message
from iota_p2p_protocols.progress import (
    MAX_MICROBATCHES,
    MAX_TOKENS,
    Progress,
    validate_progress_gossip,
)
from tests.core.pathways import EPOCH, OTHER_RUN, PEERS, RUN

NOW_S = 1_700_000_000
FIELDS = {
    "run_id": RUN,
    "sequence": 1,
    "issued_s": NOW_S,
    "expires_s": NOW_S + 600,
    "epoch": EPOCH,
    "stage": 0,
    "num_microbatches": 10,
    "num_tokens": 1000,
    "loss_sum_micronats": 4_000_000_000,
}


def sealed(peer: Identity = PEERS[0], **changes: int | bytes) -> bytes:
    return seal_message(Progress.from_fields({**FIELDS, **changes}), peer)


def received(peer: Identity = PEERS[0], **changes: int | bytes) -> Verified[Progress]:
    data = sealed(peer, **changes)
    return validate_progress_gossip(data, peer.peer_id, run_id=RUN, epoch=EPOCH, now_s=NOW_S)


def test_largest_progress__fits_its_topic() -> None:
    data = sealed(
        sequence=UINT63_MAX, epoch=UINT63_MAX, num_microbatches=MAX_MICROBATCHES, num_tokens=MAX_TOKENS, stage=63
    )
    assert len(data) <= TOPIC.max_bytes


@pytest.mark.parametrize("epoch", [EPOCH - 2, EPOCH + 1])
def test_progress_gossip__ignore_another_epoch(epoch: int) -> None:
    with pytest.raises(IgnoreError) as caught:
        received(epoch=epoch)
    assert caught.value.rule == "progress-epoch"


def test_progress_gossip__reject_impossible_losses() -> None:
    with pytest.raises(RejectError) as caught:
        received(loss_sum_micronats=1000 * 10**8 + 1)
    assert caught.value.rule == "progress-loss"


def test_progress_gossip__reject_another_run() -> None:
    with pytest.raises(RejectError) as caught:
        received(run_id=OTHER_RUN)
    assert caught.value.rule == "run-id"
