r"""A bundle: one portable file with the signed facts of a home folder, for auditors elsewhere.

    b"iota-p2p bundle 1\n"
    frame*                      4-byte length, canonical [kind, epoch, signer, envelope]
    frame                       canonical ["end", number of facts, SHA-256 of all bytes before this frame]

The end frame names a bundle that was cut off or damaged on its way; it proves nothing about the facts, which are
envelopes and speak for themselves. Facts are sorted, so equal contents make equal files.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from iota_p2p.ledger.ledger import Fact
from iota_p2p_crypto import canonical
from iota_p2p_crypto.envelope import MAX_ENVELOPE_BYTES
from iota_p2p_crypto.errors import MalformedError, OversizedError, RemoteProtocolError, UserError
from iota_p2p_crypto.identity import PeerId

MAGIC = b"iota-p2p bundle 1\n"
SUFFIX = ".iota-bundle"
MAX_FRAME_BYTES = MAX_ENVELOPE_BYTES + 1024  # an envelope, its kind and its signer's id
_LENGTH_BYTES = 4
_END = "end"


def write_bundle(path: Path, facts: Iterable[Fact]) -> int:
    """Write facts to a new file, which appears whole or not at all; return how many.

    Raises:
        UserError: if it cannot be written.
    """
    ordered = sorted(set(facts), key=lambda fact: (fact.kind, fact.epoch, fact.signer, fact.envelope))
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            running = hashlib.sha256()
            for part in (MAGIC, *map(_frame_of, ordered)):
                running.update(part)
                file.write(part)
            file.write(_frame([_END, len(ordered), running.digest()]))
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return len(ordered)


def read_bundle(path: Path) -> list[Fact]:
    """Return the facts of a bundle; nothing in them has been verified.

    Raises:
        UserError: if the file cannot be read.
        MalformedError: if it is no bundle, was cut off, or was changed outside its envelopes.
        OversizedError: if a frame is larger than any envelope may be.
    """
    facts, damage = salvage_bundle(path)
    if damage is not None:
        raise damage
    return facts


def salvage_bundle(path: Path) -> tuple[list[Fact], RemoteProtocolError | None]:
    """Return what facts a bundle holds, and what is wrong with it: an audit goes on with the rest.

    Raises:
        UserError: if the file cannot be read.
    """
    facts: list[Fact] = []
    try:
        with path.open("rb") as file:
            for fact in _facts_in(file):
                facts.append(fact)  # noqa: PERF402 - those before an error are kept
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except RemoteProtocolError as error:
        return facts, error
    return facts, None


def is_bundle(path: Path) -> bool:
    """Return whether a file begins as a bundle does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _facts_in(file: BinaryIO) -> Iterator[Fact]:
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise MalformedError("bundle-magic", f"expected a bundle, got a file that begins with {magic!r}")
    running = hashlib.sha256(magic)
    num_facts = 0
    while True:
        frame = _read_frame(file)
        value = canonical.decode(frame[_LENGTH_BYTES:], max_bytes=MAX_FRAME_BYTES)
        match value:
            case ("end", int(count), bytes(expected)):
                _check_end(file, (num_facts, running.digest()), (count, expected))
                return
            case (str(kind), int(epoch), str(signer), bytes(envelope)):
                yield Fact(kind, epoch, PeerId(signer), envelope)
            case _:
                raise MalformedError("bundle-frame", f"expected a fact or the end, got {value!r:.80}")
        running.update(frame)
        num_facts += 1


def _check_end(file: BinaryIO, read: tuple[int, bytes], said: tuple[int, bytes]) -> None:
    if read != said:
        raise MalformedError("bundle-digest", f"expected {said[0]} facts as written, got {read[0]} or others")
    if file.read(1):
        raise MalformedError("bundle-end", "expected nothing after the end, got more bytes")


def _read_frame(file: BinaryIO) -> bytes:
    head = file.read(_LENGTH_BYTES)
    length = int.from_bytes(head, "big")
    if length > MAX_FRAME_BYTES:
        raise OversizedError("bundle-frame-size", f"expected at most {MAX_FRAME_BYTES} bytes, got {length}")
    body = file.read(length)
    if len(head) < _LENGTH_BYTES or len(body) < length:
        raise MalformedError("bundle-cut-off", "expected the end of the bundle to be marked, got the end of the file")
    return head + body


def _frame_of(fact: Fact) -> bytes:
    return _frame([fact.kind, fact.epoch, fact.signer, fact.envelope])


def _frame(value: canonical.CanonicalValue) -> bytes:
    body = canonical.encode(value)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body
