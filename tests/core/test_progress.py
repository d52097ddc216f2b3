import pytest

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols import progress as progress_module
from iota_p2p_protocols.errors import IgnoreError, RejectError
from iota_p2p_protocols.ids import PROGRESS as TOPIC
from iota_p2p_protocols.message import UINT63_MAX, seal_message
from iota_p2p_protocols.progress import (
    MAX_MICROBATCHES,
    MAX_TOKENS,
    Progress,
    ProgressBoard,
    Totals,
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


def test_board__adds_up_the_latest_of_every_peer() -> None:
    board = ProgressBoard()
    board.receive(received())
    board.receive(received(sequence=2, num_microbatches=12, num_tokens=1200, loss_sum_micronats=4_400_000_000))
    board.receive(received(PEERS[1]))
    board.receive(received(PEERS[1], stage=1))
    board.receive(received(PEERS[2], epoch=EPOCH - 1))
    totals = board.totals(EPOCH, 0)
    assert totals == Totals(22, 2200, 8_400_000_000)
    assert totals.mean_loss_nats == pytest.approx(8400 / 2200)


def test_board__ignore_old_news() -> None:
    board = ProgressBoard()
    board.receive(received(sequence=2))
    for sequence in (1, 2):
        with pytest.raises(IgnoreError) as caught:
            board.receive(received(sequence=sequence))
        assert caught.value.rule == "progress-sequence"


def test_board__is_bounded_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "MAX_ROWS", 1)
    board = ProgressBoard()
    board.receive(received(epoch=EPOCH - 1))
    with pytest.raises(IgnoreError) as caught:
        board.receive(received())
    assert caught.value.rule == "progress-full"
    board.forget_before(EPOCH + 1)
    board.receive(received())
    assert board.totals(EPOCH - 1, 0).mean_loss_nats is None
