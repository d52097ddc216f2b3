from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.domains import REFUSAL
from iota_p2p_protocols.errors import MalformedError, RemoteProtocolError
from iota_p2p_protocols.refusal import (
    MAX_QUEUE_LENGTH,
    MAX_REFUSAL_BYTES,
    Refusal,
    check_refusal,
    open_refusal,
    reason_to_refuse,
    seal_refusal,
)
from tests.core.pathways import EPOCH, PEERS, RUN, STRANGER, microbatch

DIGEST = microbatch().digest(RUN)
REFUSED = Refusal(microbatch=DIGEST, stage=2, reason="no-such-stage", queue_length=MAX_QUEUE_LENGTH)


def test_refusal__survives_the_wire_within_its_bounds() -> None:
    envelope = seal_refusal(REFUSED, PEERS[2])
    refusal = open_refusal(envelope)
    check_refusal(refusal, PEERS[2].peer_id, DIGEST, 2)
    assert refusal.payload == REFUSED
    assert len(envelope) <= MAX_REFUSAL_BYTES
    assert len(refusal.payload_bytes) <= REFUSAL.max_payload_bytes


@pytest.mark.parametrize(
    "changes", [{"reason": "tired"}, {"queue_length": -1}, {"queue_length": 2**16}, {"stage": 64}, {"until": 1}]
)
def test_from_fields__refuses_what_is_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Refusal.from_fields({**REFUSED.to_fields(), **changes})


@pytest.mark.parametrize(
    ("signer", "digest", "stage", "rule"),
    [
        (STRANGER, DIGEST, 2, "refusal-signer"),
        (PEERS[2], microbatch(4).digest(RUN), 2, "refusal-request"),
        (PEERS[2], DIGEST, 1, "refusal-request"),
    ],
)
def test_check_refusal__refuses_by_name(signer: Any, digest: bytes, stage: int, rule: str) -> None:
    refusal = open_refusal(seal_refusal(REFUSED, PEERS[2]))
    with pytest.raises(RemoteProtocolError) as caught:
        check_refusal(refusal, signer.peer_id, digest, stage)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("epoch", "stage", "draining", "free_slots", "reason"),
    [
        (EPOCH, 2, False, 1, None),
        (EPOCH - 1, 2, False, 1, None),
        (EPOCH - 2, 2, False, 1, "wrong-epoch"),
        (EPOCH + 1, 9, True, 0, "wrong-epoch"),
        (EPOCH, 1, True, 0, "no-such-stage"),
        (EPOCH, 2, True, 0, "draining"),
        (EPOCH, 2, False, 0, "busy"),
    ],
)
def test_reason_to_refuse__names_the_most_lasting(
    epoch: int, stage: int, draining: Any, free_slots: int, reason: str | None
) -> None:
    got = reason_to_refuse(
        microbatch(epoch=epoch), stage, epoch=EPOCH, held={2, 3}, draining=draining, free_slots=free_slots
    )
    assert got == reason


@given(st.binary(max_size=400))
def test_any_bytes__open_as_a_refusal_or_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        open_refusal(data)
