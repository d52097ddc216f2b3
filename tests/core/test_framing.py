"""Frames are cut as the format says, and nothing is kept beyond their limits."""

import pytest

from iota_p2p_crypto import canonical
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, OversizedError
from iota_p2p_protocols.framing import Frame, FrameDecoder, Head, Kind, encode_head

LIMITS = {"max_header_bytes": 100, "max_payload_bytes": 1000}


def decoder() -> FrameDecoder:
    return FrameDecoder(**LIMITS)


def frame(fields: dict[str, object], payload: bytes = b"", kind: Kind = Kind.REQUEST) -> bytes:
    return encode_head(Head(kind, fields, len(payload)), **LIMITS) + payload


def raw(header: object) -> bytes:
    data = canonical.encode(header)
    return len(data).to_bytes(4, "big") + data


def test_decoder__returns_every_frame__when_fed_several_at_once() -> None:
    assert decoder().feed(frame({"a": 1}, b"one") + frame({}, kind=Kind.OK)) == [
        Frame(Kind.REQUEST, {"a": 1}, b"one"),
        Frame(Kind.OK, {}, b""),
    ]


def test_decoder__wants_no_byte_of_the_next_frame() -> None:
    data, under_test, offset = frame({"a": 1}, b"payload"), decoder(), 0
    while not (frames := under_test.feed(data[offset : offset + under_test.wanted])):
        offset = offset + 4 if offset == 0 else len(data) - 7
    assert frames[0].payload == b"payload"
    assert under_test.idle
    assert under_test.wanted == 4


def test_decoder__knows_the_head__before_it_takes_memory_for_the_payload() -> None:
    under_test = decoder()
    assert under_test.feed(frame({"a": 1}, bytes(1000))[:-1000]) == []
    assert under_test.head == Head(Kind.REQUEST, {"a": 1}, 1000)
    assert under_test._payload is None


def test_decoder__keeps_nothing_of_a_skipped_payload__and_stays_in_step() -> None:
    under_test = decoder()
    under_test.feed(frame({}, bytes(1000))[:-1000])
    under_test.skip_payload()
    assert under_test.feed(bytes(1000) + frame({}, b"x")) == [
        Frame(Kind.REQUEST, {}, b""),
        Frame(Kind.REQUEST, {}, b"x"),
    ]


def test_decoder__rejects_a_long_header__before_it_comes() -> None:
    with pytest.raises(OversizedError) as caught:
        decoder().feed((2**31).to_bytes(4, "big"))
    assert caught.value.rule == "frame-header-size"


def test_decoder__rejects_a_long_payload__before_it_comes() -> None:
    with pytest.raises(OversizedError) as caught:
        decoder().feed(raw({"fields": {}, "kind": "ok", "payload_bytes": 1001}))
    assert caught.value.rule == "frame-payload-size"


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        {"fields": {}, "kind": "ok"},
        {"fields": {}, "kind": "ok", "payload_bytes": -1},
        {"fields": {}, "kind": "ok", "payload_bytes": True},
        {"fields": [], "kind": "ok", "payload_bytes": 0},
        {"fields": {}, "kind": "other", "payload_bytes": 0},
        {"fields": {}, "kind": ["ok"], "payload_bytes": 0},
        {"fields": {}, "kind": {"ok": 1}, "payload_bytes": 0},
        {"extra": 1, "fields": {}, "kind": "ok", "payload_bytes": 0},
    ],
)
def test_decoder__rejects_a_header__that_is_not_one(header: object) -> None:
    with pytest.raises(MalformedError):
        decoder().feed(raw(header))


def test_decoder__rejects_an_empty_header() -> None:
    with pytest.raises(MalformedError):
        decoder().feed(bytes(4))


@pytest.mark.parametrize("head", [Head(Kind.OK, {"a": bytes(200)}, 0), Head(Kind.OK, {}, 1001)])
def test_encode__is_our_bug__beyond_the_limits(head: Head) -> None:
    with pytest.raises(LocalProtocolError):
        encode_head(head, **LIMITS)


def test_encode__leaves_all_of_the_header_limit_to_the_fields() -> None:
    fields = {"a": bytes(100 - 5)}
    assert len(canonical.encode(fields)) == 100
    encoded = encode_head(Head(Kind.REFUSED, fields, 1000), **LIMITS)
    assert decoder().feed(encoded) == []
