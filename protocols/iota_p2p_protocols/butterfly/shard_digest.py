"""The digest of a reduced shard: the root over its encoded result blocks.

It is what a reducer signs. Under it every single block of the result can be checked, as it arrives or in a proof that
it is wrong, without the rest of the shard (`iota_p2p_crypto.block_commitment`).
"""

from collections.abc import Sequence

from iota_p2p_crypto.block_commitment import BlockCommitment, BlockShape, commit_blocks
from iota_p2p_protocols.butterfly.codec import Codec, Encoded, block_values
from iota_p2p_protocols.butterfly.shard_map import Shard


def shard_shape(shard: Shard, result: Codec, num_values: int) -> BlockShape:
    """Return the sizes of a shard's result.

    Args:
        shard: one that has blocks.
        result: the codec of results.
        num_values: W, of the whole vector.
    """
    full, last = shard.blocks[:-1], shard.blocks[-1]
    num_bytes = len(full) * result.block_bytes + result.encoded_bytes(block_values(num_values, last))
    return BlockShape(result.block_bytes, num_bytes)


def commit_shard(blocks: Sequence[Encoded], result: Codec) -> BlockCommitment:
    """Return the commitment to a shard's result blocks, in order; its root is the shard's digest."""
    return commit_blocks(b"".join(blocks), result.block_bytes)
