"""Where documents come from: the Python standard library, files, or a Hugging Face dataset stream.

Every source yields documents in an order of its own making that does not depend on the file system. What the
documents *say* depends on the machine (another Python, another library), so a run names its data by digest.
"""

import glob
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from iota_p2p.run.tokens import optional
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import UserError

# Parts of the standard library's folder that are tests, vendored wheels or other people's installed packages.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "_bundled", "__pycache__"}
)
_MAX_DOCUMENT_BYTES = 1 << 20  # a generated table of 2 MB would be most of a small run's data
_HELDOUT_ONE_IN = 16


def standard_library() -> Iterator[str]:
    """Yield the sources of the Python that runs this, by path: real text on every machine that can run a peer."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(path.relative_to(root).parts)]
    return _texts(sorted(paths, key=lambda path: path.relative_to(root).as_posix()))


def files(pattern: str) -> Iterator[str]:
    """Yield the text files that a glob pattern matches, by path; raises UserError if there are none."""
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    paths = sorted(path for path in map(Path, names) if path.is_file())
    if not paths:
        raise UserError(f"no file matches {pattern}")
    return _texts(paths)


def dataset_stream(name: str, revision: str, column: str, limit: int) -> Iterator[str]:
    """Yield the first `limit` documents of a Hugging Face dataset at a fixed revision, without storing it.

    Needs the optional library `datasets`; raises UserError without it.
    """
    library = optional("datasets", "to stream a dataset")
    rows = library.load_dataset(name, revision=revision, split="train", streaming=True).take(limit)
    return (str(row[column]) for row in rows)


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
