"""What all proofs of a fault in a merge have in common: their form as one file, and what they come to.

    fault  = "iota-p2p/fault/1" || header length (4 bytes, big-endian) || header || blocks
    header = canonical map; `fault` names the kind, the rest is of that kind

Blocks follow raw, end to end, because canonical decoding may take many times the memory of what it decodes. A fault is
not signed by whoever found it: the guilty one has signed all that it takes. Anybody verifies it without a network,
without the run and without trust: `faults.verify_fault`. Spec: protocols/spec/reduce.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from iota_p2p_crypto import canonical
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.merkle import MAX_PROOF_DIGESTS
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS
from iota_p2p_protocols.errors import LocalProtocolError, MalformedError, OversizedError
from iota_p2p_protocols.message import DigestField

MAGIC = b"iota-p2p/fault/1"
MAX_HEADER_BYTES = 256 * 1024  # 64 contributions, a certificate signed by all, a report, 65 inclusion proofs: 130 KiB
MAX_BLOCKS_BYTES = (MAX_MEMBERS + 1) * BLOCK_VALUES * 4  # a block of each member and the result, as float32
_LENGTH_BYTES = 4
MAX_FAULT_BYTES = len(MAGIC) + _LENGTH_BYTES + MAX_HEADER_BYTES + MAX_BLOCKS_BYTES

InclusionProof: TypeAlias = Annotated[tuple[DigestField, ...], Field(max_length=MAX_PROOF_DIGESTS)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a fault that holds comes to.

    Attributes:
        liar: who is guilty.
        kind: of which kind: a key of `faults`.
        run_id: in which run.
        epoch: of the merge.
        stage: of the merge.
        reason: what was expected and what came, for people.
    """

    liar: PeerId
    kind: str
    run_id: bytes
    epoch: int
    stage: int
    reason: str


def pack_fault(header: canonical.CanonicalValue, blocks: Iterable[bytes] = ()) -> bytes:
    """Return the bytes of a fault; raises LocalProtocolError if its header is too long."""
    encoded = canonical.encode(header)
    if len(encoded) > MAX_HEADER_BYTES:
        raise LocalProtocolError(f"expected a header of at most {MAX_HEADER_BYTES} bytes, got {len(encoded)}")
    return b"".join((MAGIC, len(encoded).to_bytes(_LENGTH_BYTES, "big"), encoded, *blocks))


def unpack_fault(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Take a fault apart into its header's fields and its blocks.

    Raises:
        OversizedError: if it, or its header, is longer than any fault.
        MalformedError: if it does not begin as a fault does, or its header is no map.
    """
    if len(data) > MAX_FAULT_BYTES:
        raise OversizedError("fault-size", f"expected at most {MAX_FAULT_BYTES} bytes, got {len(data)}")
    start = len(MAGIC) + _LENGTH_BYTES
    if not data.startswith(MAGIC) or len(data) < start:
        raise MalformedError("fault-form", f"expected {MAGIC!r} and a length, got {data[:start]!r}")
    end = start + int.from_bytes(data[len(MAGIC) : start], "big")
    if end > len(data):
        raise MalformedError("fault-form", f"expected a header up to byte {end}, got {len(data)} bytes")
    fields = canonical.decode(data[start:end], max_bytes=MAX_HEADER_BYTES)
    if type(fields) is not dict:
        raise MalformedError("fault-form", f"expected a map as header, got {fields!r:.40}")
    return fields, memoryview(data)[end:]


def cut(blocks: memoryview, lengths: Iterable[int]) -> list[bytes]:
    """Cut blocks that follow each other apart; raises MalformedError unless they end where the last one does."""
    cuts = []
    start = 0
    for length in lengths:
        cuts.append(bytes(blocks[start : start + length]))
        start += length
    if start != len(blocks):
        raise MalformedError("fault-blocks", f"expected {start} bytes of blocks, got {len(blocks)}")
    return cuts
