"""Contradictions: two statements on the same thing that one peer signed, which an honest peer never does.

What several kinds of faults have in common: two envelopes in order, and one subject.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.fault_file import cut, unpack_fault
from iota_p2p_protocols.errors import InvalidProofError
from iota_p2p_protocols.message import Message, SignedMessage, open_signed

T = TypeVar("T", bound=SignedMessage)
H = TypeVar("H", bound="PairHeader")


class PairHeader(Message):
    """The two statements.

    Attributes:
        first: the envelope of one.
        second: that of the other; the greater one as bytes.
    """

    first: bytes
    second: bytes


class SharedPairHeader(PairHeader):
    """The same of statements that several peers sign.

    Attributes:
        liar: which of those who signed both it is about.
    """

    liar: str


def open_header(data: bytes, form: type[H]) -> H:
    """Take a proof apart that is a header and nothing else; raises RemoteProtocolError if it is malformed."""
    fields, blocks = unpack_fault(data)
    header = form.from_fields(fields)
    cut(blocks, ())
    return header


def open_pair(
    header: PairHeader, kind: type[T], about: Callable[[Verified[T]], tuple[Any, ...]], what: str, subject: str
) -> tuple[Verified[T], Verified[T]]:
    """Open both statements.

    Args:
        header: the proof's.
        kind: what both are.
        about: returns what a statement is on.
        what: its plural, for people.
        subject: what they must agree on, for people.

    Raises:
        InvalidProofError: if they are out of order, or not on the same thing.
        RemoteProtocolError: if one does not verify.
    """
    # [fault-order] each pair of statements makes one proof
    if header.first >= header.second:
        raise InvalidProofError("fault-order", f"expected two different {what} in order, got others")
    one, other = open_signed(header.first, kind), open_signed(header.second, kind)
    # [fault-same] they are on the same thing
    if about(one) != about(other):
        raise InvalidProofError("fault-same", f"expected two {what} of {subject}, got {about(one)}, {about(other)}")
    return one, other


def check_liar(header: SharedPairHeader, one: Verified[T], other: Verified[T], what: str) -> PeerId:
    """Return who signed two different statements; raises InvalidProofError if nobody named did."""
    # [fault-contradiction] they differ
    if one.payload_bytes == other.payload_bytes:
        raise InvalidProofError("fault-contradiction", f"expected two {what}, got the same one twice")
    # [fault-liar] the accused signed both
    if header.liar not in one.signers or header.liar not in other.signers:
        raise InvalidProofError("fault-liar", f"expected two {what} signed by {header.liar:.80}, got others")
    return PeerId(header.liar)
