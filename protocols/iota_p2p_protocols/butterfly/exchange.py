"""What members of a merge ask each other for over streams: committed blocks, results, the state an epoch begins with.

Everything is asked for by whoever needs it, answered from memory, and checked by the asker against what was signed:
the contribution's root, the reducer's report, the merge certificate. So an answer carries no signature of its own, and
asking twice does no harm. Spec: protocols/spec/exchange.md.

    MERGE     Note            -> {}, or a refusal: `not-yet` before the callee merges this epoch, `merged` after it
              BlocksRequest   -> {}, payload the list of block digests if wanted, then the blocks
              ResultRequest   -> {}, payload the result blocks
              BaseRequest     -> Base, payload weights as float32, and then the velocity if the run has momentum
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from iota_p2p_crypto.block_commitment import MAX_BLOCKS, BlockShape
from iota_p2p_protocols.butterfly.codec import MAX_VALUES
from iota_p2p_protocols.errors import MalformedError
from iota_p2p_protocols.message import Count, DigestField, Message
from iota_p2p_protocols.microbatch import Stage

# Blocks of one answer. The daemon carries such a frame at full speed, and a member that asks its 63 fellows for one
# each holds a gigabyte at most.
MAX_ANSWER_BYTES = 16 * 2**20
MAX_ANSWER_VALUES = MAX_ANSWER_BYTES // 4
# A request may be for some blocks of each of a reducer's shards.
MAX_SPANS = 63
# The longest note holds the contributions of 64 members.
MAX_NOTE_BYTES = 96 * 2**10
# The longest list of block digests is 2 MiB; it travels before the blocks.
MAX_LIST_BYTES = MAX_BLOCKS * 32

What = Literal["contribution", "roster", "countersignature", "report", "row", "column", "merge"]


class Span(Message):
    """Blocks that follow each other.

    Attributes:
        first: index of the first one in the whole vector.
        count: how many.
    """

    first: Annotated[int, Field(ge=0, lt=MAX_BLOCKS)]
    count: Annotated[int, Field(ge=1, le=MAX_BLOCKS)]

    @property
    def blocks(self) -> range:
        """The indexes."""
        return range(self.first, self.first + self.count)


Spans = Annotated[tuple[Span, ...], Field(max_length=MAX_SPANS)]


class Note(Message):
    """Something signed about one merge.

    Attributes:
        epoch, stage: of which merge.
        what: how to read it: a contribution, a packed roster with the convener's signature or with two thirds of all, a
            member's countersignature, a reducer's report, the mean of our row with signatures, that of another row
            with two thirds of its own, a merge with signatures.
        data: its bytes.
    """

    kind: Literal["note"] = "note"
    epoch: Count
    stage: Stage
    what: What
    data: Annotated[bytes, Field(max_length=MAX_NOTE_BYTES)]


class BlocksRequest(Message):
    """Blocks of your contribution, or of your row's mean, please.

    Attributes:
        contribution: digest of its payload.
        wants_list: True for the list of all block digests, too.
        spans: which blocks; at most MAX_ANSWER_BYTES together.
    """

    kind: Literal["blocks"] = "blocks"
    contribution: DigestField
    wants_list: bool
    spans: Spans


class ResultRequest(Message):
    """Blocks that you reduced, please.

    Attributes:
        roster: digest of the roster certificate's payload.
        spans: which blocks; at most MAX_ANSWER_BYTES together.
    """

    kind: Literal["result"] = "result"
    roster: DigestField
    spans: Spans


class BaseRequest(Message):
    """The state that your stage began its epoch with, please.

    Attributes:
        stage: which stage.
        digest: of its weights; zeros to be told which it is.
        velocity: True for the outer momentum's memory instead of the weights.
        first: index of the first value.
        count: how many values; none to be told what there is.
    """

    kind: Literal["base"] = "base"
    stage: Stage
    digest: DigestField
    velocity: bool = False
    first: Annotated[int, Field(ge=0, lt=MAX_VALUES)] = 0
    count: Annotated[int, Field(ge=0, le=MAX_ANSWER_VALUES)] = 0


class Base(Message):
    """What a stage began its epoch with.

    Attributes:
        epoch: which epoch.
        digest: SHA-256 of its weights as float32, little-endian, in the order of names.
        num_values: how many weights.
        velocity: SHA-256 of the outer momentum's memory likewise; empty where there is none.
    """

    epoch: Count
    digest: DigestField
    num_values: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    velocity: Annotated[bytes, Field(max_length=32)] = b""


def spans_of(blocks: Iterable[int], block_bytes: int) -> Iterator[tuple[Span, ...]]:
    """Yield requests' worth of spans that together cover some rising blocks, each as much as an answer holds."""
    ordered = list(blocks)
    most = max(1, MAX_ANSWER_BYTES // block_bytes)
    for start in range(0, len(ordered), most):
        chunk = ordered[start : start + most]
        cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(chunk)) if b != a + 1), len(chunk)]
        spans = [Span(first=chunk[low], count=high - low) for low, high in pairwise(cuts)]
        for low in range(0, len(spans), MAX_SPANS):
            yield tuple(spans[low : low + MAX_SPANS])


def check_spans(spans: Sequence[Span], shape: BlockShape) -> None:
    """Check spans that a peer asks for; raises MalformedError."""
    # [merge-spans] they are in order, exist, and fit one answer
    if any(low.blocks.stop > high.first for low, high in pairwise(spans)):
        raise MalformedError("merge-spans", "expected rising spans, got others")
    if spans and spans[-1].blocks.stop > shape.num_blocks:
        raise MalformedError(
            "merge-spans", f"expected blocks below {shape.num_blocks}, got {spans[-1].blocks.stop - 1}"
        )
    num_bytes = sum(span.count for span in spans) * shape.block_bytes
    if num_bytes > MAX_ANSWER_BYTES:
        raise MalformedError("merge-spans", f"expected at most {MAX_ANSWER_BYTES} bytes of blocks, got {num_bytes}")
