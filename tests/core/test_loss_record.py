import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.domains import LOSS_RECORD
from iota_p2p_crypto.envelope import seal
from iota_p2p_protocols.errors import InvalidProofError, MalformedError, RemoteProtocolError
from iota_p2p_protocols.loss_record import (
    MAX_LOSS_MICRONATS,
    LossRecord,
    loss_micronats,
    open_loss_record,
    seal_loss_record,
    verify_chain,
)
from iota_p2p_protocols.receipt import seal_receipt
from tests.core.pathways import (
    EPOCH,
    OTHER_RUN,
    PEERS,
    RUN,
    STATED,
    STRANGER,
    loss_record,
    microbatch,
    receipt,
    work_at,
)

HONEST = open_loss_record(loss_record(4)).payload


@pytest.mark.parametrize("num_stages", [1, 2, 8])
def test_verify_chain__returns_the_pathway(num_stages: int) -> None:
    record = open_loss_record(loss_record(num_stages))
    pathway = verify_chain(record, run_id=RUN, epochs=(EPOCH,), num_stages=num_stages)
    assert pathway == tuple(peer.peer_id for peer in PEERS[:num_stages])


def test_verify_chain__lets_one_peer_hold_several_stages() -> None:
    peers = (PEERS[0], PEERS[1], PEERS[1], PEERS[0])
    pathway = verify_chain(open_loss_record(loss_record(4, peers)), run_id=RUN, epochs=(EPOCH,), num_stages=4)
    assert pathway == tuple(peer.peer_id for peer in peers)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"run_id": OTHER_RUN}, "loss-record-run"),
        ({"microbatch": microbatch(epoch=EPOCH - 1)}, "loss-record-epoch"),
        ({"chain": HONEST.chain[:2]}, "loss-record-stages"),
        ({"chain": (*HONEST.chain, HONEST.chain[2])}, "loss-record-stages"),
        ({"chain": (HONEST.chain[0], HONEST.chain[0], HONEST.chain[2])}, "chain-stage"),
        ({"chain": (HONEST.chain[0], HONEST.chain[2], HONEST.chain[1])}, "chain-stage"),
        ({"chain": (*HONEST.chain[:2], b"no envelope")}, "canonical-trailing"),
        ({"microbatch": microbatch(4)}, "chain-microbatch"),
        ({"in_digest": bytes(32)}, "loss-record-link"),
    ],
)
def test_verify_chain__refuses_by_name(changes: dict[str, object], rule: str) -> None:
    payload = HONEST.model_copy(update=changes)
    with pytest.raises(RemoteProtocolError) as caught:
        verify_chain(
            open_loss_record(seal(LOSS_RECORD, payload.to_fields(), (PEERS[3],))),
            run_id=RUN,
            epochs=(EPOCH,),
            num_stages=4,
        )
    assert caught.value.rule == rule


def test_verify_chain__refuses_a_microbatch_started_in_anothers_name() -> None:
    chain = (seal_receipt(receipt(0), STRANGER), *HONEST.chain[1:])
    payload = HONEST.model_copy(update={"chain": chain})
    record = open_loss_record(seal(LOSS_RECORD, payload.to_fields(), (PEERS[3],)))
    with pytest.raises(InvalidProofError) as caught:
        verify_chain(record, run_id=RUN, epochs=(EPOCH,), num_stages=4)
    assert caught.value.rule == "loss-record-source"


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_micronats": -1},
        {"loss_micronats": MAX_LOSS_MICRONATS + 1},
        {"loss_micronats": None},
        {"num_tokens": 0},
        {"in_digest": bytes(31)},
        {"chain": (b"",) * 64},
        {"chain": (bytes(321),)},
    ],
)
def test_record__refuses_absurd_values(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        LossRecord.from_fields({**HONEST.to_fields(), **changes})


def test_record__fits_its_bound_at_64_stages() -> None:
    longest = HONEST.model_copy(update={"chain": (bytes(320),) * 63, "loss_micronats": MAX_LOSS_MICRONATS})
    LossRecord.from_fields(longest.to_fields())
    assert len(seal(LOSS_RECORD, longest.to_fields(), (PEERS[0],))) > 63 * 320


@given(st.floats())
def test_loss_micronats__is_within_half_a_millionth_or_none(loss: float) -> None:
    stated = loss_micronats(loss)
    if stated is None:
        assert not math.isfinite(loss) or not 0 <= loss <= 100
    else:
        assert abs(stated / 1e6 - loss) <= 0.6e-6


def test_seal_loss_record__states_what_the_tail_worked_on() -> None:
    record = open_loss_record(seal_loss_record(work_at(3), STATED, run_id=RUN, signer=PEERS[3]))
    assert record.payload == HONEST
    assert record.signer == PEERS[3].peer_id
