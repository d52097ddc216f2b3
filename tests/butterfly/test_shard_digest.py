import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.block_commitment import verify_block
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, block_values, num_blocks
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.shard_digest import commit_shard, shard_shape
from iota_p2p_protocols.butterfly.shard_map import draw_shard_map
from iota_p2p_protocols.errors import InvalidProofError
from tests.butterfly.test_shard_map import CERTIFICATE

TOP_K = CODECS["top-k"]  # the smallest blocks


@given(st.integers(1, 40 * BLOCK_VALUES), st.integers(1, 5))
def test_digest__proves_every_block_of_its_shard(num_values: int, members: int) -> None:
    drawn = draw_shard_map(CERTIFICATE, members, num_blocks(num_values))
    for shard in (shard for shard in drawn.shards if shard.blocks):
        blocks = [bytes([b % 251]) * TOP_K.encoded_bytes(block_values(num_values, b)) for b in shard.blocks]
        commitment = commit_shard(blocks, TOP_K)
        assert commitment.shape == shard_shape(shard, TOP_K, num_values)
        for index in {0, len(blocks) - 1}:
            verify_block(commitment.root, commitment.shape, index, blocks[index], commitment.prove_block(index))


def test_digest__refuses_a_block_of_another_place() -> None:
    blocks = [bytes([number]) * TOP_K.block_bytes for number in range(3)]
    commitment = commit_shard(blocks, TOP_K)
    with pytest.raises(InvalidProofError):
        verify_block(commitment.root, commitment.shape, 0, blocks[1], commitment.prove_block(1))
