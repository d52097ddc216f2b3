import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.block_commitment import (
    MAX_BLOCK_BYTES,
    MAX_BLOCKS,
    BlockShape,
    commit_blocks,
    open_block_list,
    verify_block,
)
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, MalformedError, OversizedError

DATA = bytes(i % 251 for i in range(1000))
COMMITMENT = commit_blocks(DATA, 64)
SHAPE = COMMITMENT.shape


def block(index: int, data: bytes = DATA, size: int = 64) -> bytes:
    return data[index * size : (index + 1) * size]


@given(data=st.binary(min_size=1, max_size=300), size=st.integers(1, 310))
def test_every_block__passes_by_list_and_by_proof(data: bytes, size: int) -> None:
    commitment = commit_blocks(data, size)
    shape = commitment.shape
    assert open_block_list(commitment.root, BlockShape(size, len(data)), commitment.digests) == commitment
    assert sum(shape.length(index) for index in range(shape.num_blocks)) == len(data)
    for index in range(shape.num_blocks):
        part = block(index, data, size)
        commitment.check_block(index, part)
        verify_block(commitment.root, shape, index, part, commitment.prove_block(index))


def test_commit_blocks__takes_any_buffer() -> None:
    assert commit_blocks(bytearray(DATA), 64) == commit_blocks(memoryview(DATA), 64) == COMMITMENT


@given(at=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_check_block__refuses_any_flipped_bit(at: int, bit: int) -> None:
    index = at // 64
    changed = bytearray(block(index))
    changed[at % 64] ^= 1 << bit
    with pytest.raises(InvalidProofError) as caught:
        COMMITMENT.check_block(index, bytes(changed))
    assert caught.value.rule == "block-digest"
    with pytest.raises(InvalidProofError) as caught:
        verify_block(COMMITMENT.root, SHAPE, index, bytes(changed), COMMITMENT.prove_block(index))
    assert caught.value.rule == "merkle-inclusion"


@pytest.mark.parametrize(
    ("index", "part", "rule"),
    [
        (0, block(1), "block-digest"),
        (0, block(0)[:-1], "block-length"),
        (0, block(0) + b"\0", "block-length"),
        (15, block(15) + bytes(24), "block-length"),
        (16, b"", "block-index"),
        (-1, block(15), "block-index"),
    ],
)
def test_check_block__refuses_by_name(index: int, part: bytes, rule: str) -> None:
    with pytest.raises(InvalidProofError) as caught:
        COMMITMENT.check_block(index, part)
    assert caught.value.rule == rule
    with pytest.raises(InvalidProofError):
        verify_block(COMMITMENT.root, SHAPE, index, part, COMMITMENT.prove_block(0))


@pytest.mark.parametrize("index", [-1, 16])
def test_prove_block__refuses_a_block_that_is_not_there(index: int) -> None:
    with pytest.raises(InvalidProofError) as caught:
        COMMITMENT.prove_block(index)
    assert caught.value.rule == "block-index"


def test_root__binds_the_sizes() -> None:
    # One block of 64 bytes has one digest whatever the block size says; the roots still differ.
    roots = {commit_blocks(block(0), size).root for size in (64, 65, 128)}
    assert len(roots) == 3
    with pytest.raises(InvalidProofError) as caught:
        open_block_list(COMMITMENT.root, BlockShape(64, 999), COMMITMENT.digests)
    assert caught.value.rule == "block-root"


def test_open_block_list__refuses_another_list() -> None:
    swapped = COMMITMENT.digests[32:64] + COMMITMENT.digests[:32] + COMMITMENT.digests[64:]
    with pytest.raises(InvalidProofError) as caught:
        open_block_list(COMMITMENT.root, SHAPE, swapped)
    assert caught.value.rule == "block-root"
    for digests in (COMMITMENT.digests[:-1], COMMITMENT.digests + bytes(32), b""):
        with pytest.raises(MalformedError) as malformed:
            open_block_list(COMMITMENT.root, SHAPE, digests)
        assert malformed.value.rule == "block-list-length"


@pytest.mark.parametrize(
    ("block_bytes", "total_bytes", "rule"),
    [
        (0, 10, "block-bytes"),
        (-1, 10, "block-bytes"),
        (MAX_BLOCK_BYTES + 1, 10, "block-bytes"),
        (64, 0, "block-total"),
        (64, -5, "block-total"),
        (64, 64 * MAX_BLOCKS + 1, "block-count"),
        (1, 1 << 63, "block-count"),
    ],
)
def test_shape__refuses_by_name(block_bytes: int, total_bytes: int, rule: str) -> None:
    with pytest.raises((MalformedError, OversizedError)) as caught:
        BlockShape(block_bytes, total_bytes)
    assert caught.value.rule == rule


def test_shape__takes_the_largest() -> None:
    assert BlockShape(MAX_BLOCK_BYTES, MAX_BLOCK_BYTES * MAX_BLOCKS).num_blocks == MAX_BLOCKS


def test_commit_blocks__refuses_our_own_nonsense() -> None:
    for data, size in ((b"", 64), (b"x", 0)):
        with pytest.raises(LocalProtocolError):
            commit_blocks(data, size)
