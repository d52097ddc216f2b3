"""Messages and checks of everything that is fetched by digest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.run import shards, spec
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_protocols import fetch
from iota_p2p_protocols.fetch import (
    ChunkRequest,
    PieceAnswer,
    PieceRequest,
    SpecAnswer,
    SpecRequest,
    StateManifest,
    StateRequest,
    check_chunk,
    check_piece,
    cut_chunk,
    cut_piece,
    digest_of_chunk,
    open_manifest,
)
from iota_p2p_protocols.framing import Head, Kind, encode_head
from iota_p2p_protocols.ids import RUN_SPEC, SHARD, STATE, ProtocolSpec
from iota_p2p_protocols.message import UINT63_MAX, Message

RUN = bytes(range(32))
REQUEST = StateRequest(run_id=RUN, stage=3)


def manifest(num_bytes: int = 25, stage: int = 3) -> StateManifest:
    return StateManifest(snapshot=bytes(16), stage=stage, epoch=7, num_steps=70, num_bytes=num_bytes)


@pytest.fixture
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "CHUNK_BYTES", 10)
    monkeypatch.setattr(fetch, "PIECE_BYTES", 10)


def test_bounds__are_those_of_what_is_fetched() -> None:
    assert RUN_SPEC.max_payload_bytes == spec.MAX_SPEC_BYTES
    assert shards.MAX_SHARD_BYTES == fetch.MAX_SHARD_BYTES
    assert fetch.PIECE_BYTES >= 16 + 4 * shards.SHARD_TOKENS, "a shard of our own packing is one piece"


@pytest.mark.parametrize(
    ("message", "protocol"),
    [
        (SpecRequest(run_id=RUN), RUN_SPEC),
        (SpecAnswer(epoch=UINT63_MAX), RUN_SPEC),
        (PieceRequest(digest=bytes(32), index=fetch.MAX_PIECES - 1), SHARD),
        (PieceAnswer(total_bytes=fetch.MAX_SHARD_BYTES), SHARD),
        (REQUEST, STATE),
        (manifest(fetch.MAX_STATE_BYTES, 1023), STATE),
        (ChunkRequest(snapshot=bytes(16), index=fetch.MAX_CHUNKS - 1), STATE),
    ],
)
def test_message__comes_back_and_fits_its_header(message: Message, protocol: ProtocolSpec) -> None:
    fields = message.to_fields()
    assert type(message).from_fields(fields) == message
    assert isinstance(fields, dict)
    encode_head(Head(Kind.OK, fields, 0), max_header_bytes=protocol.max_header_bytes, max_payload_bytes=0)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (SpecRequest, {"run_id": bytes(31)}),
        (SpecAnswer, {"epoch": -1}),
        (PieceRequest, {"digest": bytes(32), "index": fetch.MAX_PIECES}),
        (PieceRequest, {"digest": bytes(33), "index": 0}),
        (PieceAnswer, {"total_bytes": 0}),
        (PieceAnswer, {"total_bytes": fetch.MAX_SHARD_BYTES + 1}),
        (StateRequest, {"run_id": RUN, "stage": 1024}),
        (StateRequest, {"run_id": RUN, "stage": 1, "more": 1}),
        (ChunkRequest, {"snapshot": bytes(15), "index": 0}),
        (ChunkRequest, {"snapshot": bytes(16), "index": True}),
        (StateManifest, {**manifest().model_dump(), "num_bytes": fetch.MAX_STATE_BYTES + 1}),
    ],
)
def test_message__reject_when_out_of_bounds(kind: type[Message], fields: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        kind.from_fields(fields)


@pytest.mark.usefixtures("_short_parts")
@pytest.mark.parametrize("num_bytes", [1, 9, 10, 11, 20, 25])
def test_parts__make_up_the_whole(num_bytes: int) -> None:
    data = bytes(range(num_bytes))
    state = manifest(num_bytes)
    digests = open_manifest(
        state, b"".join(digest_of_chunk(data, index) for index in range(state.num_chunks)), REQUEST, num_bytes
    )
    chunks = [cut_chunk(data, index) for index in range(state.num_chunks)]
    for index, chunk in enumerate(chunks):
        check_chunk(state, index, digests[index], chunk)
        check_piece(PieceAnswer(total_bytes=num_bytes), index, len(cut_piece(data, index)), num_bytes)
    assert b"".join(chunks) == data
    for cut in (cut_piece, cut_chunk):
        with pytest.raises(MalformedError):
            cut(data, state.num_chunks)


@pytest.mark.usefixtures("_short_parts")
@given(st.binary(max_size=30), st.integers(0, 2))
def test_chunk__reject_any_other_bytes(other: bytes, index: int) -> None:
    data = bytes(range(25))
    if other == cut_chunk(data, index):
        return
    with pytest.raises(MalformedError):
        check_chunk(manifest(), index, digest_of_chunk(data, index), other)


@pytest.mark.usefixtures("_short_parts")
@pytest.mark.parametrize(("index", "num_bytes", "total"), [(0, 9, 25), (0, 11, 25), (2, 6, 25), (0, 10, 24)])
def test_piece__reject_wrong_lengths(index: int, num_bytes: int, total: int) -> None:
    with pytest.raises(MalformedError):
        check_piece(PieceAnswer(total_bytes=total), index, num_bytes, 25)


@pytest.mark.usefixtures("_short_parts")
@pytest.mark.parametrize(
    ("answer", "num_digests", "rule"),
    [
        (manifest(stage=2), 3, "state-stage"),
        (manifest(26), 3, "state-size"),
        (manifest(), 2, "state-digests"),
        (manifest(), 4, "state-digests"),
    ],
)
def test_manifest__reject_what_was_not_asked_for(answer: StateManifest, num_digests: int, rule: str) -> None:
    with pytest.raises(MalformedError) as caught:
        open_manifest(answer, digest(b"") * num_digests, REQUEST, max_bytes=25)
    assert caught.value.rule == rule
