"""Tokenizers: plain bytes, or a Hugging Face `tokenizers` file named by its digest."""

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from iota_p2p.run.spec import TokenizerSpec
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import UserError

Tokens = npt.NDArray[np.uint32]

_BYTE_VALUES = 256


class Tokenizer(Protocol):
    """Turns documents into token ids."""

    @property
    def spec(self) -> TokenizerSpec:
        """How the run's spec names this tokenizer."""
        ...

    @property
    def vocab_size(self) -> int:
        """All ids are below it."""
        ...

    def encode(self, text: str) -> Tokens:
        """Return the ids of one document, with whatever separates it from the next."""
        ...


class ByteTokenizer:
    """UTF-8 bytes, and a zero byte, which text does not contain, after every document."""

    spec = TokenizerSpec()
    vocab_size = _BYTE_VALUES

    def encode(self, text: str) -> Tokens:
        """Return the bytes of a document and a zero."""
        return np.frombuffer(text.encode("utf-8") + b"\0", np.uint8).astype(np.uint32)


class FileTokenizer:
    """A `tokenizer.json` of the Hugging Face `tokenizers` library, which is an optional dependency.

    Raises:
        UserError: if the library is missing, or the file is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        library = optional("tokenizers", "to use a tokenizer file")
        try:
            data = path.read_bytes()
            self._tokenizer = library.Tokenizer.from_buffer(data)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a tokenizer file: {error}") from error
        # Files are published with whatever their authors last used: a document must not lose its end, or grow.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.spec = TokenizerSpec(kind="file", digest=digest(data).hex())
        # Ids may have gaps, so their number is not enough.
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str) -> Tokens:
        """Return the ids of a document, with the special tokens that the file itself adds."""
        return np.asarray(self._tokenizer.encode(text).ids, np.uint32)


def optional(module: str, purpose: str) -> Any:
    """Import an optional library, or raise UserError saying what to install: the extra `data` has them."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{purpose}, install the library `{module}`: pip install 'iota-p2p[data]'") from error
