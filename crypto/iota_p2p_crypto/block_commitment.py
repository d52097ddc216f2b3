"""Commitments to large contributions, block by block.

A contribution is hashed in fixed blocks; its Merkle root goes into a signed message, the list of block digests
travels beside it. A reducer then checks each block the moment it arrives, and one bad block can be shown to anybody
with a proof of a few hundred bytes. A leaf binds the sizes and the index as well as the digest, so that a
root commits to exactly one list of blocks and one length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from iota_p2p_crypto.digest import DIGEST_BYTES, Digest
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, MalformedError, OversizedError
from iota_p2p_crypto.merkle import MerkleTree, merkle_root, verify_inclusion

MAX_BLOCKS = 1 << 16  # 64 GiB in blocks of 1 MiB, with a list of 2 MiB
MAX_BLOCK_BYTES = 1 << 24  # 16 MiB: the most a receiver holds before it can refuse
_LEAF_TAG = b"iota-p2p/block/v1"
_INTEGER_BYTES = 8  # big-endian


@dataclass(frozen=True, slots=True)
class BlockShape:
    """How a contribution of `total_bytes` falls into blocks of `block_bytes`; the last one may be shorter.

    Raises MalformedError or OversizedError on construction if the numbers, which a peer may have sent, make no
    sense or too many blocks.
    """

    block_bytes: int
    total_bytes: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not 1 <= self.block_bytes <= MAX_BLOCK_BYTES:
            raise OversizedError(
                "block-bytes", f"expected blocks of 1 to {MAX_BLOCK_BYTES} bytes, got {self.block_bytes}"
            )
        if self.total_bytes < 1:
            raise MalformedError("block-total", f"expected at least one byte, got {self.total_bytes}")
        if self.num_blocks > MAX_BLOCKS:
            raise OversizedError("block-count", f"expected at most {MAX_BLOCKS} blocks, got {self.num_blocks}")

    @property
    def num_blocks(self) -> int:
        """The number of blocks."""
        return -(-self.total_bytes // self.block_bytes)

    def length(self, index: int) -> int:
        """Return the length of one block; raises InvalidProofError if there is no such block."""
        if not 0 <= index < self.num_blocks:
            raise InvalidProofError("block-index", f"expected a block below {self.num_blocks}, got {index}")
        return min(self.block_bytes, self.total_bytes - index * self.block_bytes)

    def check_length(self, index: int, num_bytes: int) -> None:
        """Check the length of what is said to be a block; raises InvalidProofError if it is another."""
        if num_bytes != self.length(index):
            raise InvalidProofError(
                "block-length", f"expected {self.length(index)} bytes in block {index}, got {num_bytes}"
            )

    def leaf(self, index: int, block_digest: bytes) -> bytes:
        """Return the Merkle leaf of a block: tag, sizes, index and digest, all of fixed length."""
        return self.leaf_head() + index.to_bytes(_INTEGER_BYTES, "big") + block_digest

    def leaf_head(self) -> bytes:
        """Return what all leaves begin with."""
        return _LEAF_TAG + b"".join(n.to_bytes(_INTEGER_BYTES, "big") for n in (self.block_bytes, self.total_bytes))


@dataclass(frozen=True, slots=True)
class BlockCommitment:
    """The full list behind a root. Build one with `commit_blocks` or `open_block_list`.

    Attributes:
        shape: the sizes.
        digests: SHA-256 of each block, end to end.
        root: what was signed.
    """

    shape: BlockShape
    digests: bytes
    root: Digest

    def check_block(self, index: int, block: bytes | memoryview) -> None:
        """Check one block; raises InvalidProofError if it is not the committed one."""
        self.shape.check_length(index, len(block))
        expected = self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        got = sha256(block).digest()
        if got != expected:
            raise InvalidProofError("block-digest", f"expected {expected.hex()} for block {index}, got {got.hex()}")

    def prove_block(self, index: int) -> tuple[Digest, ...]:
        """Return the proof with which `verify_block` checks one block against the root alone."""
        self.shape.length(index)
        return MerkleTree(_leaves(self.shape, self.digests)).prove_inclusion(index)


def commit_blocks(data: bytes | bytearray | memoryview, block_bytes: int) -> BlockCommitment:
    """Hash our own contribution in blocks.

    Raises:
        LocalProtocolError: if it is empty or makes too many blocks.
    """
    view = memoryview(data).cast("B")
    try:
        shape = BlockShape(block_bytes, len(view))
    except (MalformedError, OversizedError) as error:
        raise LocalProtocolError(f"expected a contribution within bounds: {error}") from error
    starts = range(0, len(view), block_bytes)
    digests = b"".join(sha256(view[start : start + block_bytes]).digest() for start in starts)
    return BlockCommitment(shape, digests, merkle_root(_leaves(shape, digests)))


def open_block_list(root: bytes, shape: BlockShape, digests: bytes) -> BlockCommitment:
    """Check a list of block digests against a signed root.

    Raises:
        MalformedError: if the list has another length than the shape says.
        InvalidProofError: if it is not the committed list.
    """
    if len(digests) != shape.num_blocks * DIGEST_BYTES:
        raise MalformedError(
            "block-list-length", f"expected {shape.num_blocks * DIGEST_BYTES} bytes of digests, got {len(digests)}"
        )
    got = merkle_root(_leaves(shape, digests))
    if got != root:
        raise InvalidProofError("block-root", f"expected root {root.hex()}, got {got.hex()}")
    return BlockCommitment(shape, digests, got)


def verify_block(root: bytes, shape: BlockShape, index: int, block: bytes, proof: Sequence[bytes]) -> None:
    """Check one block against a signed root, without the list.

    Raises:
        InvalidProofError: if it is not the committed block, or the proof does not hold.
        RemoteProtocolError: if the proof is malformed or oversized.
    """
    shape.check_length(index, len(block))
    leaf = shape.leaf(index, sha256(block).digest())
    verify_inclusion(root=root, size=shape.num_blocks, index=index, data=leaf, proof=proof)


def _leaves(shape: BlockShape, digests: bytes) -> Iterator[bytes]:
    head = shape.leaf_head()
    for index in range(shape.num_blocks):
        block_digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        yield head + index.to_bytes(_INTEGER_BYTES, "big") + block_digest
