"""Bytes become text while they come."""

from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.generation.byte_text import ByteText, prompt_tokens


def pieces(data: bytes) -> list[str]:
    letters = ByteText()
    return [*(letters.add(token) for token in data), letters.end()]


def test_letter__appears_with_its_last_byte() -> None:
    assert pieces("aé€".encode()) == ["a", "", "é", "", "", "€", ""]


def test_broken_letter__replaced_as_soon_as_it_cannot_be_whole_any_more() -> None:
    assert pieces(b"\xe2\x82a\xff") == ["", "", "\ufffda", "\ufffd", ""]
    assert pieces(b"a\xe2\x82") == ["a", "", "", "\ufffd"]


def test_control_characters__replaced_because_they_would_act_on_a_terminal() -> None:
    assert "".join(pieces(b"a\x1b[2J\r\0\n\tb")) == "a\ufffd[2J\ufffd\ufffd\n\tb"


@given(st.binary(max_size=60))
def test_any_bytes__come_out_as_if_decoded_at_once(data: bytes) -> None:
    whole = data.decode(errors="replace")
    assert "".join(pieces(data)) == "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in whole)


def test_prompt__begins_a_document_when_it_is_empty() -> None:
    assert prompt_tokens("é") == [0xC3, 0xA9]
    assert prompt_tokens("") == [0]
