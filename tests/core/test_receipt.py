import pytest

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.domains import RECEIPT
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.chain import open_chain
from iota_p2p_protocols.errors import MalformedError, RemoteProtocolError
from iota_p2p_protocols.message import UINT63_MAX
from iota_p2p_protocols.receipt import MAX_RECEIPT_BYTES, Receipt, check_receipt, open_receipt, seal_receipt
from tests.core.pathways import OTHER_RUN, PEERS, RUN, STRANGER, activation, microbatch, receipt, work_at


def test_receipt__survives_the_wire_in_few_bytes() -> None:
    envelope = seal_receipt(receipt(7, direction="backward"), PEERS[7])
    assert len(envelope) == 311 <= MAX_RECEIPT_BYTES
    opened = open_receipt(envelope)
    assert (opened.payload, opened.signer) == (receipt(7, direction="backward"), PEERS[7].peer_id)
    assert len(opened.payload_bytes) <= RECEIPT.max_payload_bytes


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"stage": 1}, "receipt-form"),
        ((), "receipt-form"),
        ((bytes(32), 1, "forward", bytes(32)), "receipt-form"),
        ((bytes(32), 1, "forward", bytes(32), bytes(32), 0), "receipt-form"),
        ((bytes(31), 1, "forward", bytes(32), bytes(32)), "message-field"),
        ((bytes(32), 64, "forward", bytes(32), bytes(32)), "message-field"),
        ((bytes(32), -1, "forward", bytes(32), bytes(32)), "message-field"),
        ((bytes(32), True, "forward", bytes(32), bytes(32)), "message-field"),
        ((bytes(32), 1, "sideways", bytes(32), bytes(32)), "message-field"),
        ((bytes(32), UINT63_MAX, "forward", bytes(32), bytes(32)), "message-field"),
    ],
)
def test_from_fields__refuses_by_name(fields: object, rule: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Receipt.from_fields(fields)
    assert caught.value.rule == rule


def test_to_fields__is_the_list_that_is_signed() -> None:
    packed = canonical.encode(receipt(2).to_fields())
    assert Receipt.from_fields(canonical.decode(packed)) == receipt(2)


@pytest.mark.parametrize(
    ("signer", "changes", "rule"),
    [
        (STRANGER, {}, "receipt-signer"),
        (PEERS[2], {"subject": microbatch(4).digest(RUN)}, "receipt-subject"),
        (PEERS[2], {"subject": microbatch().digest(OTHER_RUN)}, "receipt-subject"),
        (PEERS[2], {"stage": 1}, "receipt-stage"),
        (PEERS[2], {"direction": "backward"}, "receipt-direction"),
        (PEERS[2], {"out_digest": digest(b"other bytes")}, "receipt-payload"),
    ],
)
def test_check_receipt__refuses_by_name(signer: Identity, changes: dict[str, object], rule: str) -> None:
    opened = open_receipt(seal_receipt(receipt(2, **changes), signer))
    with pytest.raises(RemoteProtocolError) as caught:
        check_receipt(
            opened,
            PEERS[2].peer_id,
            subject=microbatch().digest(RUN),
            stage=2,
            direction="forward",
            out_digest=digest(activation(2)),
        )
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("at", "changes", "rule"),
    [
        (1, {"subject": microbatch(4).digest(RUN)}, "chain-microbatch"),
        (1, {"direction": "backward"}, "chain-direction"),
        (1, {"stage": 2}, "chain-stage"),
        (0, {"in_digest": digest(b"other bytes")}, "chain-link"),
        (1, {"in_digest": digest(b"other bytes")}, "chain-link"),
        (1, {"out_digest": digest(b"other bytes")}, "chain-link"),
    ],
)
def test_open_chain__refuses_by_name(at: int, changes: dict[str, object], rule: str) -> None:
    envelopes = [seal_receipt(receipt(stage, **(changes if stage == at else {})), PEERS[stage]) for stage in range(3)]
    with pytest.raises(RemoteProtocolError) as caught:
        open_chain(envelopes, microbatch().digest(RUN))
    assert caught.value.rule == rule


def test_open_chain__refuses_a_wrong_signature_though_a_known_receipt_says_the_same() -> None:
    chain = work_at(3).chain
    envelopes = [link.envelope_bytes for link in chain]
    forged = envelopes[1][:-1] + bytes([envelopes[1][-1] ^ 1])
    with pytest.raises(RemoteProtocolError) as caught:
        open_chain([envelopes[0], forged, envelopes[2]], microbatch().digest(RUN), chain)
    assert caught.value.rule == "signature"


def test_open_chain__takes_known_receipts_as_they_are() -> None:
    chain = work_at(3).chain
    again = open_chain([link.envelope_bytes for link in chain], microbatch().digest(RUN), chain)
    assert all(new is old for new, old in zip(again, chain, strict=True))
