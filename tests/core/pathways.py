"""A microbatch's way through stages held by known keys, for tests and vectors."""

from collections.abc import Sequence

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.activation import (
    ActivationRequest,
    ActivationResponse,
    ActivationTerms,
    SeenReceipts,
    Sent,
    build_request,
    build_response,
    receive_request,
)
from iota_p2p_protocols.chain import StageInput, source_input
from iota_p2p_protocols.loss_record import Loss, open_loss_record, seal_loss_record
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.receipt import Receipt

PEERS = tuple(Identity.from_seed(bytes([number]) * 32) for number in range(8))
STRANGER = Identity.from_seed(b"s" * 32)
RUN, OTHER_RUN = bytes(range(32)), bytes(range(1, 33))
EPOCH = 7
LOSS = 4_250_000  # micronats
NUM_TOKENS = 1024
STATED = Loss(LOSS, NUM_TOKENS, time_ms=1_800_000_000_123)


def terms(num_stages: int) -> ActivationTerms:
    return ActivationTerms(run_id=RUN, num_stages=num_stages, activation_bytes=24, gradient_bytes=20)


def microbatch(counter: int = 3, epoch: int = EPOCH) -> MicrobatchId:
    return MicrobatchId(epoch=epoch, source=PEERS[0].peer_id, counter=counter)


def activation(stage: int) -> bytes:
    """What `stage` sends on: 24 bytes."""
    return f"activation of stage {stage:4}".encode()


def gradient(stage: int) -> bytes:
    """What `stage` sends back: 20 bytes."""
    return f"gradient of stage {stage:2}".encode()


def work_at(stage: int, peers: Sequence[Identity] = PEERS, counter: int = 3) -> StageInput:
    """Return what the peer at a stage works on after honest peers at all stages before."""
    work = source_input(microbatch(counter), RUN)
    for index in range(stage):
        request = build_request(work, activation(index), peers[index]).header
        work = receive_request(request, activation(index), peers[index].peer_id, terms(len(PEERS)), SeenReceipts())
    return work


def sent_to(stage: int) -> Sent:
    """Return what an honest pathway sends to a stage."""
    return build_request(work_at(stage - 1), activation(stage - 1), PEERS[stage - 1])


def request_to(stage: int) -> ActivationRequest:
    """Return the header of it."""
    return sent_to(stage).header


def loss_record(num_stages: int, peers: Sequence[Identity] = PEERS, counter: int = 3) -> bytes:
    """Return the record of an honest pathway."""
    tail = num_stages - 1
    return seal_loss_record(work_at(tail, peers, counter), STATED, run_id=RUN, signer=peers[tail])


def response_of(stage: int, num_stages: int) -> ActivationResponse:
    """Return the answer of an honest stage, with `gradient(stage)` as payload."""
    return response_with(stage, loss_record(num_stages), is_last=stage == num_stages - 1)


def response_with(stage: int, loss_record_: bytes, *, is_last: bool = False) -> ActivationResponse:
    """Return the answer of a stage to which any record came."""
    record = open_loss_record(loss_record_)
    came = record.digest if is_last else digest(gradient(stage + 1))
    return build_response(work_at(stage), came, gradient(stage), record, PEERS[stage])


def receipt(stage: int, /, **changes: object) -> Receipt:
    """Return the forward receipt of an honest stage, or one with other fields."""
    fields: dict[str, object] = {
        "subject": microbatch().digest(RUN),
        "stage": stage,
        "direction": "forward",
        "in_digest": work_at(stage).in_digest,
        "out_digest": digest(activation(stage)),
    }
    return Receipt.model_validate({**fields, **changes})
