"""Text as the tokens of a run with byte tokens (`iota_p2p.run.tokens.ByteTokenizer`), and back while it comes."""

import codecs

# What stands between documents: a text without a prompt begins after one.
SEPARATOR = 0
BYTE_VALUES = 256


def prompt_tokens(prompt: str) -> list[int]:
    """Return a prompt's tokens; unlike a document's, no separator follows, as the text is to go on."""
    return list(prompt.encode("utf-8")) or [SEPARATOR]


class ByteText:
    """Turns bytes into text one by one: a letter appears with its last byte, a broken one as a replacement mark.

    Control characters but newline and tab are shown as replacement marks, too: whoever answered chose these bytes,
    and they may go to a terminal.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> str:
        """Return the text that is certain with this token; often nothing yet."""
        return _shown(self._decoder.decode(bytes([token])))

    def end(self) -> str:
        """Return what is left of a letter whose last byte never came."""
        return _shown(self._decoder.decode(b"", final=True))


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
