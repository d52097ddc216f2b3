"""Any bytes decode to frames or raise what names their sender, however they are cut."""

from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.errors import MalformedError, OversizedError
from iota_p2p_protocols.framing import Frame, FrameDecoder, Head, Kind, encode_head

LIMITS = {"max_header_bytes": 64, "max_payload_bytes": 64}

frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.dictionaries(st.text(max_size=4), st.integers(0, 2**32) | st.binary(max_size=4), max_size=3),
    st.binary(max_size=64),
)
headers = st.fixed_dictionaries(
    {
        "fields": st.dictionaries(st.text(max_size=2), st.integers(0, 9)) | st.none(),
        "payload_bytes": st.integers(-2, 70),
    },
    optional={"kind": st.sampled_from(["ok", "request", "?"]) | st.lists(st.integers(0, 3)), "x": st.none()},
)


def encode(frame: Frame) -> bytes:
    return encode_head(Head(frame.kind, frame.fields, len(frame.payload)), **LIMITS) + bytes(frame.payload)


def encode_raw(header: object) -> bytes:
    data = canonical.encode(header)
    return len(data).to_bytes(4, "big") + data


def decode(parts: list[bytes]) -> tuple[list[Frame], str]:
    """Return the frames, and the rule that ended them."""
    decoder, decoded = FrameDecoder(**LIMITS), []
    try:
        for part in parts:
            decoded += decoder.feed(part)
            assert len(decoder._header) <= 4 + 128
            assert decoder.wanted > 0
    except (MalformedError, OversizedError) as error:
        return decoded, error.rule
    return decoded, ""


@given(st.lists(frames, max_size=4))
def test_decoder__inverts_encode(sent: list[Frame]) -> None:
    assert decode([b"".join(map(encode, sent))]) == (sent, "")


@given(st.lists(st.binary(max_size=20) | frames.map(encode) | headers.map(encode_raw), max_size=5), st.data())
def test_decoder__does_not_care__how_bytes_are_cut(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    by_byte, by_byte_rule = decode([whole[i : i + 1] for i in range(len(whole))])
    at_once, at_once_rule = decode([whole])
    assert at_once_rule == by_byte_rule
    assert decode(pieces)[1] == by_byte_rule
    if not by_byte_rule:
        assert at_once == decode(pieces)[0] == by_byte
