from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.activation import (
    MAX_ATTEMPTS,
    ActivationRequest,
    ActivationResponse,
    Answered,
    SeenReceipts,
    build_request,
    receive_request,
    receive_response,
)
from iota_p2p_protocols.chain import StageInput
from iota_p2p_protocols.errors import MalformedError, RemoteProtocolError, StaleError
from iota_p2p_protocols.ids import ACTIVATION
from iota_p2p_protocols.loss_record import open_loss_record
from iota_p2p_protocols.receipt import seal_receipt
from tests.core.pathways import (
    PEERS,
    RUN,
    STRANGER,
    activation,
    gradient,
    loss_record,
    microbatch,
    receipt,
    request_to,
    response_of,
    response_with,
    sent_to,
    terms,
    work_at,
)

REQUEST = request_to(2)


def receive(request: ActivationRequest, payload: bytes = activation(1), caller: Identity = PEERS[1]) -> StageInput:
    return receive_request(request, payload, caller.peer_id, terms(4), SeenReceipts())


def rule_of(caught: pytest.ExceptionInfo[RemoteProtocolError]) -> str:
    return caught.value.rule


def test_receive_request__returns_what_to_work_on() -> None:
    work = receive(ActivationRequest.from_fields(canonical.decode(canonical.encode(REQUEST.to_fields()))))
    assert (work.microbatch, work.stage, work.in_digest) == (microbatch(), 2, digest(activation(1)))
    assert [link.signer for link in work.chain] == [PEERS[0].peer_id, PEERS[1].peer_id]


@pytest.mark.parametrize(
    ("request_", "payload", "caller", "rule"),
    [
        (request_to(4), activation(3), PEERS[3], "activation-stage"),
        (REQUEST, activation(1)[:-1], PEERS[1], "activation-bytes"),
        (REQUEST, activation(1) + b"\0", PEERS[1], "activation-bytes"),
        (REQUEST, activation(1), PEERS[0], "receipt-signer"),
        (REQUEST, activation(1), STRANGER, "receipt-signer"),
        (REQUEST.model_copy(update={"microbatch": microbatch(4)}), activation(1), PEERS[1], "receipt-subject"),
        (
            REQUEST.model_copy(update={"chain": (REQUEST.chain[1], REQUEST.chain[0])}),
            activation(1),
            PEERS[0],
            "receipt-stage",
        ),
        (REQUEST, activation(0), PEERS[1], "receipt-payload"),
        (
            REQUEST.model_copy(update={"chain": (REQUEST.chain[1], REQUEST.chain[1])}),
            activation(1),
            PEERS[1],
            "chain-stage",
        ),
        (
            REQUEST.model_copy(
                update={"chain": (seal_receipt(receipt(0, out_digest=bytes(32)), PEERS[0]), REQUEST.chain[1])}
            ),
            activation(1),
            PEERS[1],
            "chain-link",
        ),
        (
            REQUEST.model_copy(update={"chain": (seal_receipt(receipt(0), STRANGER), REQUEST.chain[1])}),
            activation(1),
            PEERS[1],
            "activation-source",
        ),
    ],
)
def test_receive_request__refuses_by_name(
    request_: ActivationRequest, payload: bytes, caller: Identity, rule: str
) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        receive(request_, payload, caller)
    assert rule_of(caught) == rule


def test_receive_request__refuses_a_replay_but_not_another_callers_attempt() -> None:
    seen = SeenReceipts()
    receive_request(REQUEST, activation(1), PEERS[1].peer_id, terms(4), seen)
    with pytest.raises(StaleError) as caught:
        receive_request(REQUEST, activation(1), PEERS[1].peer_id, terms(4), seen)
    assert caught.value.rule == "activation-replay"
    retry = build_request(
        work_at(1), activation(1), PEERS[5]
    ).header  # another replica of stage 1, after the first died
    receive_request(retry, activation(1), PEERS[5].peer_id, terms(4), seen)


def test_receive_request__takes_a_microbatch_again_with_another_chain_but_not_for_ever() -> None:
    """Its caller answered too late, or stood behind another replica, and did the stage again."""
    seen = SeenReceipts()
    for attempt in range(MAX_ATTEMPTS):
        payload = f"a stage's attempt number {attempt}".encode()[-24:]
        request = build_request(work_at(1), payload, PEERS[1]).header
        receive_request(request, payload, PEERS[1].peer_id, terms(4), seen)
        with pytest.raises(StaleError):
            receive_request(request, payload, PEERS[1].peer_id, terms(4), seen)
    with pytest.raises(StaleError):
        receive_request(REQUEST, activation(1), PEERS[1].peer_id, terms(4), seen)


def test_receive_request__tells_chains_apart_by_every_receipt() -> None:
    """Two replicas of stage 1 with equal weights: what stage 2 signs is the same, what it stands on is not."""
    seen = SeenReceipts()
    for replica in (PEERS[1], PEERS[5]):
        request = build_request(work_at(2, (PEERS[0], replica)), activation(2), PEERS[2]).header
        receive_request(request, activation(2), PEERS[2].peer_id, terms(4), seen)


def test_receive_request__notes_nothing_of_a_refused_request() -> None:
    seen = SeenReceipts()
    with pytest.raises(MalformedError):
        receive_request(REQUEST, b"", PEERS[1].peer_id, terms(4), seen)
    receive_request(REQUEST, activation(1), PEERS[1].peer_id, terms(4), seen)


def test_seen_receipts__are_bounded() -> None:
    seen = SeenReceipts(limit=2)
    chains = [work_at(1, counter=counter).chain for counter in range(3)]
    for chain in chains:
        seen.add(chain)
    assert len(seen._seen) == 2
    seen.add(chains[0])  # forgotten, so taken again
    with pytest.raises(StaleError):
        seen.add(chains[2])
    for chain in chains:
        seen.forget(chain)
    assert not seen._seen


@pytest.mark.parametrize("changes", [{"chain": ()}, {"stage": 0}, {"stage": 3}, {"stage": 64}, {"labels": b""}])
def test_request__refuses_a_chain_that_does_not_fit_its_stage(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        ActivationRequest.from_fields({**REQUEST.to_fields(), **changes})


@pytest.mark.parametrize(
    ("receipt_", "record", "refusal"), [(b"", b"", b""), (b"r", b"", b""), (b"", b"l", b""), (b"r", b"l", b"x")]
)
def test_response__refuses_neither_and_both(receipt_: bytes, record: bytes, refusal: bytes) -> None:
    with pytest.raises(MalformedError):
        ActivationResponse.from_fields({"receipt": receipt_, "loss_record": record, "refusal": refusal})


def answer(stage: int, response: ActivationResponse, payload: bytes, callee: Identity | None = None) -> Answered:
    peer = PEERS[stage] if callee is None else callee
    return receive_response(response, payload, peer.peer_id, sent=sent_to(stage), terms=terms(4))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_receive_response__returns_the_whole_pathway(stage: int) -> None:
    wire = canonical.encode(response_of(stage, 4).to_fields())
    answered = answer(stage, ActivationResponse.from_fields(canonical.decode(wire)), gradient(stage))
    assert answered.pathway == tuple(peer.peer_id for peer in PEERS[:4])


OTHER_TAIL = (*PEERS[:3], PEERS[7])
OTHER_MIDDLE = (*PEERS[:2], PEERS[7], PEERS[3])


def answer_with(stage: int, record: bytes) -> dict[str, bytes]:
    """Return what is in the answer of a stage to which any record came, and behind which another stage stands."""
    return dict(response_with(stage, record))


@pytest.mark.parametrize(
    ("stage", "changes", "payload", "callee", "rule"),
    [
        (2, {}, gradient(2)[1:], PEERS[2], "gradient-bytes"),
        (2, {}, gradient(2), PEERS[3], "receipt-signer"),
        (2, {}, gradient(1), PEERS[2], "receipt-payload"),
        (2, {"receipt": seal_receipt(receipt(2), PEERS[2])}, gradient(2), PEERS[2], "receipt-direction"),
        (2, {"receipt": response_with(2, loss_record(4, counter=4)).receipt}, gradient(2), PEERS[2], "receipt-subject"),
        (2, answer_with(2, loss_record(4, counter=4)), gradient(2), PEERS[2], "response-chain"),
        (2, answer_with(2, loss_record(4, (PEERS[0], PEERS[6], *PEERS[2:]))), gradient(2), PEERS[2], "response-chain"),
        (2, answer_with(2, loss_record(3)), gradient(2), PEERS[2], "loss-record-stages"),
        (2, answer_with(2, loss_record(4, OTHER_MIDDLE)), gradient(2), PEERS[2], "response-pathway"),
        (3, answer_with(3, loss_record(4, OTHER_TAIL)), gradient(3), PEERS[3], "response-pathway"),
        (
            3,
            answer_with(3, loss_record(4)),
            gradient(3),
            PEERS[3],
            "response-tail",
        ),
    ],
)
def test_receive_response__refuses_by_name(
    stage: int, changes: dict[str, bytes], payload: bytes, callee: Identity, rule: str
) -> None:
    response = response_of(stage, 4).model_copy(update=changes)
    with pytest.raises(RemoteProtocolError) as caught:
        answer(stage, response, payload, callee)
    assert rule_of(caught) == rule


def test_headers__fit_their_protocol_at_64_stages() -> None:
    request = ActivationRequest(microbatch=microbatch(), stage=63, chain=(bytes(320),) * 63)
    assert len(canonical.encode(request.to_fields())) <= ACTIVATION.max_header_bytes
    response = ActivationResponse(receipt=bytes(320), loss_record=bytes(63 * 323 + 500))
    assert len(canonical.encode(response.to_fields())) <= ACTIVATION.max_header_bytes


HEADERS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
KNOWN_FIELDS = st.fixed_dictionaries(
    {
        "microbatch": HEADERS | st.just(microbatch().to_fields()),
        "stage": HEADERS | st.just(2),
        "chain": HEADERS | st.tuples(*[st.sampled_from(REQUEST.chain) | st.binary(max_size=320)] * 2),
    }
)


@given(fields=HEADERS | KNOWN_FIELDS, payload=st.binary(min_size=24, max_size=24) | st.just(activation(1)))
def test_any_request__is_taken_or_refused_as_the_peers_fault(fields: Any, payload: bytes) -> None:
    try:
        work = receive(ActivationRequest.from_fields(fields), payload)
    except RemoteProtocolError:
        return
    assert (work.digest, payload) == (microbatch().digest(RUN), activation(1))


RESPONSE = response_of(2, 4)


@given(data=st.data())
def test_any_response__with_one_byte_changed__is_refused_as_the_peers_fault(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(["receipt", "loss_record"]))
    original = getattr(RESPONSE, field)
    at = data.draw(st.integers(0, len(original) - 1))
    changed = original[:at] + bytes([original[at] ^ data.draw(st.integers(1, 255))]) + original[at + 1 :]
    with pytest.raises(RemoteProtocolError):
        answer(2, RESPONSE.model_copy(update={field: changed}), gradient(2))


@given(st.binary(max_size=400))
def test_any_bytes__open_as_a_loss_record_or_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        open_loss_record(data)
