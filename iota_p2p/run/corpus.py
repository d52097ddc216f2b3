"""Where documents come from: the Python standard library, files, or a Hugging Face dataset stream.

Every source yields documents in an order of its own making that does not depend on the file system. What the
documents *say* depends on the machine (another Python, another library), so a run names its data by digest.
"""

import glob
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from iota_p2p.run.tokens import optional
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import UserError

# Parts of the standard library's folder that are tests, vendored wheels or other people's installed packages.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "_bundled", "__pycache__"}
)
_MAX_DOCUMENT_BYTES = 1 << 20  # a generated table of 2 MB would be most of a small run's data
_HELDOUT_ONE_IN = 16
# A file's documents end at the first line end after this many characters: windows of a few thousand tokens do not miss
# what is further away, and a single file of some hundred kilobytes has pieces to hold out.
_PIECE_CHARACTERS = 16 * 1024


def standard_library() -> Iterator[str]:
    """Yield the sources of the Python that runs this, by path: real text on every machine that can run a peer."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(path.relative_to(root).parts)]
    return _texts(sorted(paths, key=lambda path: path.relative_to(root).as_posix()))


def files(pattern: str) -> Iterator[str]:
    """Yield the text files that a glob pattern matches, by path, long ones cut at line ends.

    Raises UserError if there are none, or, at the end, if none of them was text.
    """
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    paths = sorted(path for path in map(Path, names) if path.is_file())
    if not paths:
        raise UserError(f"no file matches {pattern}")
    return _pieces_of(paths, pattern)


def _pieces_of(paths: Iterable[Path], pattern: str) -> Iterator[str]:
    is_any_text = False
    for path in paths:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                while lines := file.readlines(_PIECE_CHARACTERS):
                    is_any_text = True
                    yield "".join(lines)
        except UnicodeDecodeError:  # a picture among the texts; what came before it stays
            continue
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not is_any_text:
        raise UserError(f"no file that matches {pattern} is text in UTF-8")


def dataset_stream(name: str, revision: str, column: str, limit: int, *, subset: str | None = None) -> Iterator[str]:
    """Yield the first `limit` documents of a Hugging Face dataset's `train` split, without storing it.

    Args:
        name: its id, or a folder of files that the library reads.
        revision: the commit, so that others find the same documents.
        column: which of its columns is the text.
        limit: how many documents.
        subset: which of its configurations; None where it has one.

    Raises:
        UserError: without the optional library `datasets`, or if there is no such data; also while it is read.
    """
    library = optional("datasets", "to stream a dataset")
    try:
        stream = library.load_dataset(name, subset, revision=revision, split="train", streaming=True)
    except (OSError, ValueError) as error:  # all that the library raises for what is not there
        raise UserError(f"cannot stream the dataset {name} at {revision}: {_first_line(error)}") from error
    return _column(stream.take(limit), name, column)


def _column(rows: Iterable[Mapping[str, Any]], name: str, column: str) -> Iterator[str]:
    try:
        for row in rows:
            text = row.get(column)
            if not isinstance(text, str):
                columns = ", ".join(key for key, value in row.items() if isinstance(value, str)) or "none"
                raise UserError(f"the dataset {name} has no text in column {column!r} of every row; texts: {columns}")
            yield text
    except (OSError, ValueError) as error:
        raise UserError(f"the dataset {name} broke off: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_heldout(text: str) -> bool:
    """True for the one document in 16 that is kept from training: by content, so that copies stay on one side."""
    return digest(text.encode("utf-8"))[0] % _HELDOUT_ONE_IN == 0


def split(documents: Iterable[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return (training, held-out) documents, each in their order."""
    train: list[str] = []
    heldout: list[str] = []
    for text in documents:
        (heldout if is_heldout(text) else train).append(text)
    return train, heldout


def _texts(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the files that are UTF-8 text of a sensible size."""
    for path in paths:
        data = path.read_bytes()
        if not data or len(data) > _MAX_DOCUMENT_BYTES:
            continue
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError:  # a test case for some other encoding
            continue
