"""Messages and checks of runs and shards, which are fetched by digest."""

import pytest

from iota_p2p.run import shards, spec
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_protocols import fetch
from iota_p2p_protocols.fetch import (
    PieceAnswer,
    PieceRequest,
    SpecAnswer,
    SpecRequest,
    check_piece,
    cut_piece,
)
from iota_p2p_protocols.framing import Head, Kind, encode_head
from iota_p2p_protocols.ids import RUN_SPEC, SHARD, ProtocolSpec
from iota_p2p_protocols.message import UINT63_MAX, Message

RUN = bytes(range(32))


@pytest.fixture
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
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
    ],
)
def test_message__reject_when_out_of_bounds(kind: type[Message], fields: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        kind.from_fields(fields)


@pytest.mark.usefixtures("_short_parts")
@pytest.mark.parametrize("num_bytes", [1, 9, 10, 11, 20, 25])
def test_pieces__make_up_the_whole(num_bytes: int) -> None:
    data = bytes(range(num_bytes))
    num_pieces = -(-num_bytes // 10)
    pieces = [cut_piece(data, index) for index in range(num_pieces)]
    for index, piece in enumerate(pieces):
        check_piece(PieceAnswer(total_bytes=num_bytes), index, len(piece), num_bytes)
    assert b"".join(pieces) == data
    with pytest.raises(MalformedError):
        cut_piece(data, num_pieces)


@pytest.mark.usefixtures("_short_parts")
@pytest.mark.parametrize(("index", "num_bytes", "total"), [(0, 9, 25), (0, 11, 25), (2, 6, 25), (0, 10, 24)])
def test_piece__reject_wrong_lengths(index: int, num_bytes: int, total: int) -> None:
    with pytest.raises(MalformedError):
        check_piece(PieceAnswer(total_bytes=total), index, num_bytes, 25)
