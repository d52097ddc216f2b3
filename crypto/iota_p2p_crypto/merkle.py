"""An append-only Merkle tree over SHA-256: roots, inclusion proofs and consistency proofs.

The tree of RFC 6962 section 2.1: leaf = H(0x00 || data), node = H(0x01 || left || right), and a tree of n leaves
splits at the largest power of two below n. The prefixes keep a node from being passed off as a leaf. Proofs
are sequences of 32-byte digests, nearest to the leaf first. The checks follow RFC 9162 sections 2.1.3.2 and
2.1.4.2, which are the same tree's.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from iota_p2p_crypto.digest import DIGEST_BYTES, Digest
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, MalformedError, OversizedError

MAX_LEAVES = 1 << 40  # a million leaves a second for 12 days; keeps a proof from a peer below 2.6 kB
MAX_PROOF_DIGESTS = 41  # one for each level, and one more where a consistency proof names its first node
EMPTY_ROOT = Digest(sha256().digest())  # RFC 6962's root of no leaves


def leaf_digest(data: bytes) -> Digest:
    """Return the digest of a leaf's data."""
    return Digest(sha256(b"\x00" + data).digest())


def node_digest(left: bytes, right: bytes) -> Digest:
    """Return the digest of an inner node."""
    return Digest(sha256(b"\x01" + left + right).digest())


def merkle_root(leaves: Iterable[bytes]) -> Digest:
    """Return the root over some leaves, several times faster than by a tree that is to be asked more."""
    level = [sha256(b"\x00" + data).digest() for data in leaves]
    while len(level) > 1:
        # A node without a sibling rises as it is: what splitting at powers of two comes to, from below.
        paired = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = [*paired, level[-1]] if len(level) % 2 else paired
    return Digest(level[0]) if level else EMPTY_ROOT


class MerkleTree:
    """A growing tree that keeps every full node: 64 bytes a leaf, two hashes an append, O(log n) a proof.

    Roots and proofs can be had for every earlier size too. Asking for a leaf or size that does not exist raises
    LocalProtocolError: bounds that come from a peer are checked where they are parsed.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        # _levels[k] holds, end to end, the digests of the full subtrees of 2^k leaves, from the left.
        self._levels: list[bytearray] = [bytearray()]
        self._size = 0
        for data in leaves:
            self.append(data)

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> int:
        """Add a leaf and return its index."""
        node: bytes = leaf_digest(data)
        index = self._size
        height, position = 0, index
        while True:
            level = self._levels[height]
            level += node
            if position & 1 == 0:  # a left child waits for its sibling
                break
            node = sha256(b"\x01" + level[-2 * DIGEST_BYTES :]).digest()
            height, position = height + 1, position >> 1
            if height == len(self._levels):
                self._levels.append(bytearray())
        self._size = index + 1
        return index

    def leaf(self, index: int) -> Digest:
        """Return the digest of a leaf."""
        if not 0 <= index < self._size:
            raise LocalProtocolError(f"expected a leaf below {self._size}, got {index}")
        return self._node(0, index)

    def root(self, size: int | None = None) -> Digest:
        """Return the root of the first `size` leaves, by default of all."""
        return self._range_root(0, self._checked_size(size))

    def prove_inclusion(self, index: int, size: int | None = None) -> tuple[Digest, ...]:
        """Return the proof that leaf `index` is in the tree of the first `size` leaves (RFC 6962, 2.1.1)."""
        start, end = 0, self._checked_size(size)
        if not 0 <= index < end:
            raise LocalProtocolError(f"expected a leaf below {end}, got {index}")
        path: list[Digest] = []
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range_root(middle, end))
                end = middle
            else:
                path.append(self._range_root(start, middle))
                start = middle
        return tuple(reversed(path))

    def prove_consistency(self, old_size: int, new_size: int | None = None) -> tuple[Digest, ...]:
        """Return the proof that the tree of `old_size` leaves is a prefix of that of `new_size` (RFC 6962, 2.1.2).

        Empty for equal sizes and for an empty old tree, which is a prefix of every tree.
        """
        start, end = 0, self._checked_size(new_size)
        if not 0 <= old_size <= end:
            raise LocalProtocolError(f"expected an old size up to {end}, got {old_size}")
        if old_size == 0:
            return ()
        path: list[Digest] = []
        while old_size != end:
            middle = start + _split(end - start)
            if old_size <= middle:
                path.append(self._range_root(middle, end))
                end = middle
            else:
                path.append(self._range_root(start, middle))
                start = middle
        if start > 0:  # otherwise this node is the old root, which the verifier has
            path.append(self._range_root(start, end))
        return tuple(reversed(path))

    def _checked_size(self, size: int | None) -> int:
        if size is None:
            return self._size
        if not 0 <= size <= self._size:
            raise LocalProtocolError(f"expected a size up to {self._size}, got {size}")
        return size

    def _node(self, height: int, position: int) -> Digest:
        offset = position * DIGEST_BYTES
        return Digest(bytes(self._levels[height][offset : offset + DIGEST_BYTES]))

    def _range_root(self, start: int, end: int) -> Digest:
        """Return the root over leaves start..end; start is a multiple of the largest power of two in the width."""
        root: Digest | None = None
        while end > start:  # fold the full subtrees, the smallest and rightmost first
            height = ((end - start) & (start - end)).bit_length() - 1
            end -= 1 << height
            node = self._node(height, end >> height)
            root = node if root is None else node_digest(node, root)
        return EMPTY_ROOT if root is None else root


def verify_inclusion(*, root: bytes, size: int, index: int, data: bytes, proof: Sequence[bytes]) -> None:
    """Check that `data` is leaf `index` of the tree with this root and size.

    Raises:
        OversizedError: if the size or the proof exceeds its bound.
        MalformedError: if a digest has another length.
        InvalidProofError: if the proof does not hold.
    """
    _check_form(size, proof, root)
    if not 0 <= index < size:
        raise InvalidProofError("merkle-index", f"expected a leaf below {size}, got {index}")
    node = leaf_digest(data)
    for sibling, on_left in _siblings(index, size - 1, proof):
        node = node_digest(sibling, node) if on_left else node_digest(node, sibling)
    _check_root("merkle-inclusion", root, node)


def verify_consistency(
    *, old_root: bytes, old_size: int, new_root: bytes, new_size: int, proof: Sequence[bytes]
) -> None:
    """Check that the old tree is a prefix of the new one: that nothing was changed, only appended.

    Raises:
        OversizedError: if a size or the proof exceeds its bound.
        MalformedError: if a digest has another length.
        InvalidProofError: if the proof does not hold.
    """
    _check_form(new_size, proof, old_root, new_root)
    if not 0 <= old_size <= new_size:
        raise InvalidProofError("merkle-size", f"expected an old size up to {new_size}, got {old_size}")
    if old_size in (0, new_size):
        if proof:
            raise InvalidProofError("merkle-proof-length", f"expected an empty proof, got {len(proof)} digests")
        _check_root("merkle-consistency", old_root, EMPTY_ROOT if old_size == 0 else new_root)
        if new_size == 0:
            _check_root("merkle-consistency", new_root, EMPTY_ROOT)
        return
    position, last = old_size - 1, new_size - 1
    while position & 1:  # the old tree's last full subtree: the first node both trees share
        position, last = position >> 1, last >> 1
    path = proof if position else (old_root, *proof)  # a full old tree is that node itself
    if not path:
        raise InvalidProofError("merkle-proof-length", "expected a longer proof, got 0 digests")
    old = new = Digest(path[0])
    for sibling, on_left in _siblings(position, last, path[1:]):
        if on_left:  # what stands left of the node is in both trees, what stands right only in the new one
            old = node_digest(sibling, old)
        new = node_digest(sibling, new) if on_left else node_digest(new, sibling)
    _check_root("merkle-consistency", old_root, old)
    _check_root("merkle-consistency", new_root, new)


def _split(width: int) -> int:
    """Return the largest power of two below `width`, where RFC 6962 splits a tree."""
    return 1 << ((width - 1).bit_length() - 1)


def _siblings(position: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Climb from a node to the root, and yield each sibling with whether it stands on the left.

    `position` and `last` count the node and the rightmost one on its level. Raises InvalidProofError unless the
    proof is exactly as long as the way.
    """
    for sibling in proof:
        if last == 0:
            raise InvalidProofError("merkle-proof-length", f"expected a shorter proof, got {len(proof)} digests")
        on_left = bool(position & 1) or position == last
        while on_left and position and not position & 1:  # a rightmost left child rises without a sibling
            position, last = position >> 1, last >> 1
        yield sibling, on_left
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InvalidProofError("merkle-proof-length", f"expected a longer proof, got {len(proof)} digests")


def _check_form(size: int, proof: Sequence[bytes], *roots: bytes) -> None:
    if size > MAX_LEAVES:
        raise OversizedError("merkle-size", f"expected at most {MAX_LEAVES} leaves, got {size}")
    if len(proof) > MAX_PROOF_DIGESTS:
        raise OversizedError("merkle-proof-length", f"expected at most {MAX_PROOF_DIGESTS} digests, got {len(proof)}")
    for item in (*roots, *proof):
        if len(item) != DIGEST_BYTES:
            raise MalformedError("merkle-digest", f"expected digests of {DIGEST_BYTES} bytes, got {len(item)}")


def _check_root(rule: str, claimed: bytes, computed: bytes) -> None:
    if claimed != computed:
        raise InvalidProofError(rule, f"expected root {claimed.hex()}, got {computed.hex()}")
