from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from iota_p2p_crypto import merkle
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, MalformedError, OversizedError
from iota_p2p_crypto.merkle import EMPTY_ROOT, MerkleTree, merkle_root, verify_consistency, verify_inclusion

# The inputs and roots that Certificate Transparency's own RFC 6962 implementations publish (transparency-dev/merkle,
# testonly/constants.go): trees of 0 to 8 leaves.
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSION_5_OF_8 = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]
EXHAUSTIVE = 40  # every index and every pair of sizes up to here, past two powers of two
LEAVES = [b"leaf %d" % i for i in range(300)]
TREE = MerkleTree(LEAVES)
SIZES = st.integers(1, len(LEAVES))


def oracle(num_leaves: int) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for leaf in LEAVES[:num_leaves]:
        tree.append_entry(leaf)
    return tree


ORACLE = oracle(len(LEAVES))


def check_inclusion(size: int, index: int, /, **changes: object) -> None:
    fields: dict[str, object] = {"root": TREE.root(size), "size": size, "index": index, "data": LEAVES[index]}
    verify_inclusion(**{**fields, "proof": TREE.prove_inclusion(index, size), **changes})  # type: ignore[arg-type]  # the changes are meant to be wrong


def check_consistency(old: int, new: int, /, **changes: object) -> None:
    fields: dict[str, object] = {
        "old_root": TREE.root(old),
        "old_size": old,
        "new_root": TREE.root(new),
        "new_size": new,
    }
    verify_consistency(**{**fields, "proof": TREE.prove_consistency(old, new), **changes})  # type: ignore[arg-type]  # the changes are meant to be wrong


def flipped(digest: bytes, bit: int = 0) -> bytes:
    return bytes((digest[0] ^ 1 << bit,)) + digest[1:]


def test_root__agrees_with_the_published_trees() -> None:
    tree = MerkleTree()
    assert tree.root().hex() == CT_ROOTS[0] == EMPTY_ROOT.hex()
    for index, leaf in enumerate(CT_LEAVES):
        assert tree.append(leaf) == index
        assert tree.root().hex() == CT_ROOTS[index + 1]
    assert [tree.root(size).hex() for size in range(9)] == CT_ROOTS
    assert [digest.hex() for digest in tree.prove_inclusion(5)] == CT_INCLUSION_5_OF_8


def test_digests__separate_leaves_from_nodes() -> None:
    left, right = sha256(b"l").digest(), sha256(b"r").digest()
    assert merkle.leaf_digest(b"x") == sha256(b"\x00x").digest()
    assert merkle.node_digest(left, right) == sha256(b"\x01" + left + right).digest()
    assert merkle.leaf_digest(left + right) != merkle.node_digest(left, right)


def test_root__agrees_with_pymerkle_at_every_size() -> None:
    for size in range(1, len(LEAVES) + 1):
        assert TREE.root(size) == ORACLE.get_root(size)


def without_leaf(path: list[bytes], leaf: bytes) -> tuple[bytes, ...]:
    """Drop the leaf digest with which pymerkle starts an inclusion path; the RFC leaves it out."""
    assert path[0] == leaf
    return tuple(path[1:])


def test_inclusion__agrees_with_pymerkle_for_all_small_trees() -> None:
    for size in range(1, EXHAUSTIVE + 1):
        for index in range(size):
            theirs = ORACLE.prove_inclusion(index + 1, size)
            assert TREE.prove_inclusion(index, size) == without_leaf(theirs.path, TREE.leaf(index))
            check_inclusion(size, index)


def defined_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def defined_consistency(m: int, leaves: list[bytes], *, known: bool = True) -> tuple[bytes, ...]:
    """RFC 6962 section 2.1.2, word for word: SUBPROOF(m, D[n], b)."""
    if m == len(leaves):
        return () if known else (defined_root(leaves),)
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return (*defined_consistency(m, leaves[:k], known=known), defined_root(leaves[k:]))
    return (*defined_consistency(m - k, leaves[k:], known=False), defined_root(leaves[:k]))


def test_consistency__agrees_with_its_definition_and_pymerkle_for_all_small_trees() -> None:
    for new in range(1, EXHAUSTIVE + 1):
        for old in range(1, new + 1):
            check_consistency(old, new)
            assert TREE.prove_consistency(old, new) == defined_consistency(old, LEAVES[:new])
            # pymerkle orders its own proofs otherwise, so it can only judge the roots.
            ORACLE.prove_consistency(old, new).verify(TREE.root(old), TREE.root(new))


@given(data=st.data(), size=SIZES)
def test_inclusion__agrees_with_pymerkle(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    theirs = ORACLE.prove_inclusion(index + 1, size)
    assert TREE.prove_inclusion(index, size) == without_leaf(theirs.path, TREE.leaf(index))
    check_inclusion(size, index)


@given(sizes=st.tuples(SIZES, SIZES).map(sorted))
def test_consistency__holds_for_any_two_sizes(sizes: list[int]) -> None:
    check_consistency(*sizes)
    ORACLE.prove_consistency(*sizes).verify(TREE.root(sizes[0]), TREE.root(sizes[1]))


def test_inclusion__refuses_every_other_index_size_or_leaf() -> None:
    for size in range(1, 18):
        for index in range(size):
            for other in range(size):
                if other != index:
                    with pytest.raises(InvalidProofError):
                        check_inclusion(size, index, index=other)
                    with pytest.raises(InvalidProofError):
                        check_inclusion(size, index, data=LEAVES[other])
            with pytest.raises(InvalidProofError):
                check_inclusion(size, index, root=TREE.root(size + 1))


def test_consistency__refuses_every_other_size_pair_of_the_same_roots() -> None:
    for old, new in [(1, 2), (3, 7), (4, 7), (6, 8), (8, 13), (8, 16)]:
        for other in range(1, 18):
            if other != old:
                with pytest.raises(InvalidProofError):
                    check_consistency(old, new, old_root=TREE.root(other))
                # A claimed old size may equal the new one only with the new root.
                with pytest.raises(InvalidProofError):
                    check_consistency(old, new, old_size=other)


@given(data=st.data(), size=st.integers(2, len(LEAVES)))
def test_inclusion__refuses_a_changed_path(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = TREE.prove_inclusion(index, size)
    where = data.draw(st.integers(0, len(proof) - 1))
    bad = [
        (*proof[:where], flipped(proof[where], data.draw(st.integers(0, 7))), *proof[where + 1 :]),
        (*proof[:where], *proof[where + 1 :]),
        (*proof[:where], proof[where], *proof[where:]),
    ]
    for changed in bad:
        with pytest.raises(InvalidProofError):
            check_inclusion(size, index, proof=changed)


@given(data=st.data(), new=st.integers(2, len(LEAVES)))
def test_consistency__refuses_a_changed_path(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(1, new - 1))
    proof = TREE.prove_consistency(old, new)
    where = data.draw(st.integers(0, len(proof) - 1))
    bad = [
        (*proof[:where], flipped(proof[where], data.draw(st.integers(0, 7))), *proof[where + 1 :]),
        (*proof[:where], *proof[where + 1 :]),
        (*proof, proof[where]),
    ]
    for changed in bad:
        with pytest.raises(InvalidProofError):
            check_consistency(old, new, proof=changed)


def test_consistency__refuses_a_rewritten_leaf() -> None:
    rewritten = MerkleTree([*LEAVES[:5], b"other", *LEAVES[6:20]])
    for old in range(6, 20):
        with pytest.raises(InvalidProofError) as caught:
            check_consistency(old, 20, new_root=rewritten.root(), proof=rewritten.prove_consistency(old))
        assert caught.value.rule == "merkle-consistency"


def test_consistency__of_equal_or_empty_trees_has_no_proof() -> None:
    for size in (0, 1, 7, 8):
        assert TREE.prove_consistency(size, size) == TREE.prove_consistency(0, size) == ()
        check_consistency(size, size)
        check_consistency(0, size)
    junk = TREE.leaf(0)
    for changes in ({"proof": (junk,)}, {"old_root": junk}, {"new_root": junk}):
        with pytest.raises(InvalidProofError):
            check_consistency(7, 7, **changes)
        with pytest.raises(InvalidProofError):
            check_consistency(0, 0, **changes)
    with pytest.raises(InvalidProofError):
        check_consistency(0, 7, old_root=junk)


@pytest.mark.parametrize(
    ("changes", "error", "rule"),
    [
        ({"size": merkle.MAX_LEAVES + 1}, OversizedError, "merkle-size"),
        ({"proof": (bytes(32),) * 42}, OversizedError, "merkle-proof-length"),
        ({"proof": (bytes(31),) * 3}, MalformedError, "merkle-digest"),
        ({"root": b""}, MalformedError, "merkle-digest"),
        ({"index": 8}, InvalidProofError, "merkle-index"),
        ({"index": -1}, InvalidProofError, "merkle-index"),
        ({"size": 0, "index": 0}, InvalidProofError, "merkle-index"),
        ({"proof": ()}, InvalidProofError, "merkle-proof-length"),
        ({"proof": (*TREE.prove_inclusion(3, 8), bytes(32))}, InvalidProofError, "merkle-proof-length"),
    ],
)
def test_inclusion__refuses_by_name(changes: dict[str, object], error: type[InvalidProofError], rule: str) -> None:
    with pytest.raises(error) as caught:
        check_inclusion(8, 3, **changes)
    assert caught.value.rule == rule


def test_consistency__refuses_sizes_that_shrink_or_exceed() -> None:
    with pytest.raises(InvalidProofError, match="old size"):
        check_consistency(3, 7, old_size=8)
    with pytest.raises(InvalidProofError, match="old size"):
        check_consistency(3, 7, old_size=-1)
    with pytest.raises(OversizedError):
        check_consistency(3, 7, new_size=merkle.MAX_LEAVES + 1)


def test_largest_proof__fits_its_bound() -> None:
    # A tree of 2^40 leaves cannot be built here; its longest proofs are as long as its levels say.
    assert (merkle.MAX_LEAVES - 1).bit_length() + 1 == merkle.MAX_PROOF_DIGESTS
    assert max(len(TREE.prove_consistency(old, 256)) for old in range(1, 256)) == 9


def test_tree__refuses_what_it_does_not_have() -> None:
    calls: tuple[tuple[Any, ...], ...] = (
        (TREE.leaf, 300),
        (TREE.leaf, -1),
        (TREE.root, 301),
        (TREE.root, -1),
        (TREE.prove_inclusion, 7, 7),
        (TREE.prove_inclusion, -1),
        (TREE.prove_consistency, 8, 7),
        (TREE.prove_consistency, -1, 7),
    )
    for method, *arguments in calls:
        with pytest.raises(LocalProtocolError):
            method(*arguments)


def test_root__of_an_earlier_size_survives_growth() -> None:
    tree = MerkleTree()
    roots = [tree.root()]
    for leaf in LEAVES[:70]:
        tree.append(leaf)
        roots.append(tree.root())
    assert [tree.root(size) for size in range(71)] == roots
    assert all(a != b for a, b in pairwise(roots))
    assert len(tree) == 70


def test_merkle_root__is_the_tree_s_of_that_size() -> None:
    assert [merkle_root(LEAVES[:size]) for size in range(EXHAUSTIVE)] == [TREE.root(size) for size in range(EXHAUSTIVE)]
    assert [merkle_root(CT_LEAVES[:size]).hex() for size in range(len(CT_ROOTS))] == CT_ROOTS
