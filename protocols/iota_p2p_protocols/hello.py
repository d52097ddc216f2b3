"""Hello: the first words between two peers, on `/iota-p2p/hello/1`.

The caller says which versions it speaks, which run it is in and what its clock shows; the other side answers the
same of itself, or refuses with a reason. Nothing here is signed: both ids come from the transport's handshake, and
nobody else ever needs to believe it.
"""

from typing import Annotated

from pydantic import Field

from iota_p2p_protocols.errors import UnsupportedVersionError, WrongRunError
from iota_p2p_protocols.ids import NO_RUN, RUN_ID_BYTES
from iota_p2p_protocols.message import Count, Message

Version = Annotated[int, Field(ge=1, le=2**16)]


class Hello(Message):
    """What a peer says of itself first.

    Attributes:
        oldest_version: the oldest protocol version it speaks.
        newest_version: the newest one.
        run_id: its run; zeros if it follows whatever run the other is in.
        software: name and version, for people.
        clock_ms: its clock, Unix milliseconds.
    """

    oldest_version: Version
    newest_version: Version
    run_id: Annotated[bytes, Field(min_length=RUN_ID_BYTES, max_length=RUN_ID_BYTES)]
    software: Annotated[str, Field(max_length=64)]
    clock_ms: Count


def agree(ours: Hello, theirs: Hello) -> int:
    """Return the newest protocol version both sides speak.

    Raises:
        WrongRunError: if both belong to a run, and not to the same.
        UnsupportedVersionError: if there is no version in common.
    """
    if NO_RUN not in (ours.run_id, theirs.run_id) and ours.run_id != theirs.run_id:
        raise WrongRunError("hello-run", f"expected run {ours.run_id.hex()[:16]}, got {theirs.run_id.hex()[:16]}")
    version = min(ours.newest_version, theirs.newest_version)
    if version < max(ours.oldest_version, theirs.oldest_version):
        raise UnsupportedVersionError(
            "hello-version",
            f"expected a version from {ours.oldest_version} to {ours.newest_version}, "
            f"got {theirs.oldest_version} to {theirs.newest_version}",
        )
    return version


def clock_offset_s(theirs: Hello, sent_s: float, received_s: float) -> float:
    """Estimate how far the other's clock is ahead of ours, in seconds, assuming a symmetric way there and back."""
    return theirs.clock_ms / 1000 - (sent_s + received_s) / 2
