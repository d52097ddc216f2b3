"""Who keeps what, and what the messages of custody and of states may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.errors import InvalidSignatureError, LocalProtocolError, MalformedError
from iota_p2p_protocols import state_manifest
from iota_p2p_protocols.custody import (
    NUM_COPIES,
    NUM_CUSTODIANS,
    ChunkRequest,
    PushRequest,
    PutRequest,
    StateAnswer,
    StateRequest,
    Wanted,
    check_push,
    custodians,
    merit,
    open_indices,
    pack_indices,
    pusher,
    rank,
)
from iota_p2p_protocols.framing import Head, Kind, encode_head
from iota_p2p_protocols.ids import CUSTODY, STATE, ProtocolSpec
from iota_p2p_protocols.message import UINT63_MAX, Message, open_signed, seal_message
from iota_p2p_protocols.state_manifest import (
    LIFETIME_S,
    MAX_CHUNKS,
    MAX_STATE_BYTES,
    Listing,
    StateManifest,
    check_chunk,
    check_listing,
    cut,
    listing_of,
    open_listing,
)
from tests.custody.keepers import RUN, identity_of

NOW_S = 1_700_000_000
PEERS = [identity_of(number).peer_id for number in range(1, 31)]


def manifest(num_bytes: int = 65, weights_bytes: int = 30, chunks: bytes = b"", **changes: object) -> StateManifest:
    fields = {
        "run_id": RUN,
        "sequence": 5,
        "issued_s": NOW_S,
        "expires_s": NOW_S + LIFETIME_S,
        "stage": 2,
        "epoch": 7,
        "num_steps": 70,
        "num_bytes": num_bytes,
        "weights_bytes": weights_bytes,
        "chunks_digest": digest(chunks),
        "theta_digest": bytes(32),
        "certificate": bytes(32),
    }
    return StateManifest.from_fields(fields | changes)


def listing(data: bytes, weights_bytes: int, **changes: object) -> Listing:
    digests = b"".join(digest(chunk) for chunk in cut(data, weights_bytes))
    sealed = seal_message(manifest(len(data), weights_bytes, digests, **changes), identity_of(1))
    return listing_of(open_signed(sealed, StateManifest), digests)


LARGEST = manifest(
    MAX_STATE_BYTES, MAX_STATE_BYTES, stage=1023, epoch=UINT63_MAX, num_steps=UINT63_MAX, sequence=UINT63_MAX
)


@pytest.fixture
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_manifest, "CHUNK_BYTES", 10)


def test_custodians__are_few_live_and_no_holders() -> None:
    holders = PEERS[:2]
    chosen = custodians(RUN, 3, PEERS, holders)
    assert len(chosen) == NUM_COPIES - 2
    assert not set(chosen) & set(holders)
    assert custodians(RUN, 3, reversed(PEERS), holders) == chosen, "whatever the order of the view"
    assert custodians(RUN, 3, PEERS[:3], holders) == [PEERS[2]]
    assert custodians(RUN, 3, holders, holders) == []
    assert [len(custodians(RUN, 3, PEERS, PEERS[:count])) for count in range(7)] == [3, 3, 2, 1, 1, 1, 1]


def test_custodians__stay_when_others_come_and_go() -> None:
    chosen = custodians(RUN, 3, PEERS, PEERS[:1])
    for gone in PEERS[1:]:
        left = custodians(RUN, 3, [peer for peer in PEERS if peer != gone], PEERS[:1])
        assert len(set(left) & set(chosen)) == NUM_CUSTODIANS - (gone in chosen)


def test_custodians__of_many_stages_are_spread_over_all() -> None:
    """Rendezvous hashing gives 30 peers 300 copies; nobody has three times his share."""
    load = dict.fromkeys(PEERS, 0)
    for stage in range(100):
        for peer in rank(RUN, stage, PEERS)[:3]:
            load[peer] += 1
    assert 2 <= min(load.values()) <= max(load.values()) <= 30


def test_pusher__is_one_of_the_holders_and_the_same_for_all() -> None:
    assert pusher(RUN, 3, PEERS[:5]) == pusher(RUN, 3, reversed(PEERS[:5]))
    assert pusher(RUN, 3, PEERS[:5]) in PEERS[:5]
    assert pusher(RUN, 3, []) is None


def test_merit__puts_states_of_later_epochs_first_and_then_certified_ones() -> None:
    """A stage whose holder is alone now has no certificates any more, and goes on all the same."""
    early, late = manifest(epoch=7, num_steps=70), manifest(epoch=8, num_steps=60)
    certified, old = (manifest(certificate=bytes([1]) * 32, epoch=epoch) for epoch in (7, 6))
    assert sorted([late, certified, early, old], key=merit) == [old, early, certified, late]


@pytest.mark.parametrize(
    ("message", "protocol"),
    [
        (StateRequest(run_id=RUN, stage=1023, kept=True), STATE),
        (StateAnswer(manifest=seal_message(LARGEST, identity_of(1))), STATE),
        (ChunkRequest(digest=bytes(32)), STATE),
        (PushRequest(manifest=seal_message(LARGEST, identity_of(1))), CUSTODY),
        (PutRequest(manifest=bytes(32), index=MAX_CHUNKS - 1), CUSTODY),
        (Wanted(), CUSTODY),
    ],
)
def test_message__comes_back_and_fits_its_header(message: Message, protocol: ProtocolSpec) -> None:
    fields = message.to_fields()
    assert type(message).from_fields(fields) == message
    assert isinstance(fields, dict)
    encode_head(Head(Kind.OK, fields, 0), max_header_bytes=protocol.max_header_bytes, max_payload_bytes=0)


def test_largest_state__has_a_list_that_fits_a_payload() -> None:
    assert manifest(MAX_STATE_BYTES, 1).num_chunks * 32 <= STATE.max_payload_bytes
    assert manifest(MAX_STATE_BYTES, MAX_STATE_BYTES // 2).num_chunks * 32 <= STATE.max_payload_bytes


@pytest.mark.parametrize(
    "fields",
    [
        {"num_bytes": 0},
        {"num_bytes": MAX_STATE_BYTES + 1},
        {"weights_bytes": 0},
        {"weights_bytes": 66},
        {"stage": 1024},
        {"epoch": -1},
        {"theta_digest": bytes(31)},
        {"certificate": None},
        {"more": 1},
    ],
)
def test_manifest__reject_when_out_of_bounds(fields: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        manifest(**fields)  # type: ignore[arg-type] # any field


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize(
    ("num_bytes", "weights_bytes"), [(1, 1), (10, 10), (11, 11), (11, 10), (25, 1), (65, 30), (65, 31)]
)
def test_chunks__make_up_the_state_and_begin_anew_with_the_weights(num_bytes: int, weights_bytes: int) -> None:
    data = bytes(range(num_bytes))
    state = listing(data, weights_bytes)
    spans = [state.state.span(index) for index in range(state.state.num_chunks)]
    assert b"".join(data[start:end] for start, end in spans) == data
    assert num_bytes == weights_bytes or num_bytes - weights_bytes in {start for start, _ in spans}
    for index, (start, end) in enumerate(spans):
        check_chunk(state, index, data[start:end])
    with pytest.raises(MalformedError):
        state.state.span(len(spans))


@pytest.mark.usefixtures("_short_chunks")
@given(st.binary(max_size=12), st.integers(0, 6))
def test_chunk__reject_any_other_bytes(other: bytes, index: int) -> None:
    data = bytes(range(65))
    state = listing(data, 30)
    start, end = state.state.span(index)
    if other != data[start:end]:
        with pytest.raises(MalformedError):
            check_chunk(state, index, other)


def test_replicas_with_the_same_weights__share_the_weights_chunks() -> None:
    ours, theirs = (listing(bytes([seed]) * 35 + bytes(range(30)), 30) for seed in (1, 2))
    assert ours.digests[0] != theirs.digests[0]
    assert ours.digests[1:] == theirs.digests[1:]


@pytest.mark.parametrize(
    ("stage", "max_bytes", "weights_bytes", "rule"),
    [(3, 65, 30, "state-stage"), (2, 64, 30, "state-size"), (2, 65, 31, "state-size"), (2, 65, 29, "state-size")],
)
def test_listing__reject_what_no_state_of_the_stage_can_be(
    stage: int, max_bytes: int, weights_bytes: int, rule: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        check_listing(listing(bytes(65), 30), stage, max_bytes, weights_bytes)
    assert caught.value.rule == rule


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_any_bytes__make_a_listing_or_a_remote_error(envelope: bytes, packed: bytes) -> None:
    good = seal_message(manifest(chunks=b""), identity_of(1))
    for data in (envelope, good):
        with pytest.raises(MalformedError):
            open_listing(data, packed, run_id=RUN, now_s=NOW_S)


def test_push__reject_a_state_that_somebody_else_signed() -> None:
    check_push(listing(bytes(65), 30).manifest, PEERS[0])
    with pytest.raises(InvalidSignatureError):
        check_push(listing(bytes(65), 30).manifest, PEERS[1])


@given(st.sets(st.integers(0, 99)))
def test_indices__come_back(indices: set[int]) -> None:
    assert open_indices(pack_indices(sorted(indices)), 100) == sorted(indices)


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        (bytes(3), "wanted-length"),
        (bytes(4 * 11), "wanted-length"),
        (pack_indices([10]), "wanted-order"),
        (pack_indices([3, 2]), "wanted-order"),
        (pack_indices([3, 3]), "wanted-order"),
    ],
)
def test_indices__reject_what_is_no_set_of_chunks(payload: bytes, rule: str) -> None:
    with pytest.raises(MalformedError) as caught:
        open_indices(payload, 10)
    assert caught.value.rule == rule


def test_manifest__cannot_be_made_without_a_signature() -> None:
    with pytest.raises(LocalProtocolError):
        Listing(type(listing(bytes(65), 30).manifest)(), (Digest(bytes(32)),))
