"""An append-only log that its owner cannot rewrite unseen.

The owner keeps a `TransparencyLog` and signs its heads. Everybody else keeps a `LogView` per log: it moves to a new
head only by a proof that nothing before it was changed, and raises `EquivocationError`, with both signed heads as
portable evidence, when the owner has signed two histories.

Theory of operation: a view holds the longest head it has accepted and the recent ones before it. A head
of a size it remembers must have the remembered root. A longer one needs a consistency proof from the longest. A
shorter one it does not remember is stale: it can show nothing new, because the view has outgrown it by proof.
A proof that fails convicts nobody, since whoever passed it on may have broken it; the view stays where it is.
"""

from collections.abc import Iterable, Sequence

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import LocalProtocolError, RemoteProtocolError, StaleError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.merkle import EMPTY_ROOT, MerkleTree, verify_consistency
from iota_p2p_crypto.tree_head import TreeHead

# Envelopes kept per log, so that gossip arriving out of order is still compared: an hour of heads at one every
# 15 s, and at most 256 * 9 KiB = 2.3 MB even if each carries 64 signatures.
MAX_REMEMBERED_HEADS = 256


class EquivocationError(RemoteProtocolError):
    """The owner of a log signed two heads of one size with different roots.

    Attributes:
        peer_id: the owner, who is guilty whoever passed the heads on.
        first, second: the two signed heads; their envelope bytes convince anybody.
    """

    def __init__(self, first: Verified[TreeHead], second: Verified[TreeHead]) -> None:
        head, other = first.payload, second.payload
        super().__init__(
            "tree-head-equivocation",
            f"expected root {head.root.hex()} at size {head.size} of {head.log_id}'s log, got {other.root.hex()}",
        )
        self.peer_id = head.log_id
        self.first = first
        self.second = second


class TransparencyLog:
    """The owner's side: entries go in, heads and proofs come out."""

    def __init__(self, run_id: bytes, owner: PeerId, entries: Iterable[bytes] = ()) -> None:
        self._run_id = run_id
        self._owner = owner
        self._tree = MerkleTree(entries)

    def __len__(self) -> int:
        return len(self._tree)

    def append(self, entry: bytes) -> int:
        """Add an entry and return its index."""
        return self._tree.append(entry)

    def head(self, now_s: int) -> TreeHead:
        """Return the present head, for its owner to sign."""
        return TreeHead(self._run_id, self._owner, len(self._tree), self._tree.root(), now_s)

    def prove_inclusion(self, index: int, size: int | None = None) -> tuple[Digest, ...]:
        """Return the proof that an entry is in the log of `size` entries; see `verify_inclusion`."""
        return self._tree.prove_inclusion(index, size)

    def prove_consistency(self, old_size: int, new_size: int | None = None) -> tuple[Digest, ...]:
        """Return the proof that takes a view from one size to another."""
        return self._tree.prove_consistency(old_size, new_size)


class LogView:
    """A follower's side: what one peer knows of another's log. Begins with the empty log, which needs no head."""

    def __init__(self, run_id: bytes, log_id: PeerId) -> None:
        self._run_id = run_id
        self._log_id = log_id
        self._heads: dict[int, Verified[TreeHead]] = {}  # by size, in growing order

    @property
    def head(self) -> Verified[TreeHead] | None:
        """The longest head accepted, or None before the first."""
        return self._heads[self.size] if self._heads else None

    @property
    def size(self) -> int:
        """The number of entries accepted: where the next consistency proof has to begin."""
        return next(reversed(self._heads), 0)

    @property
    def root(self) -> bytes:
        """The root over those entries."""
        return self._heads[self.size].payload.root if self._heads else EMPTY_ROOT

    def accept(self, head: Verified[TreeHead], proof: Sequence[bytes] = ()) -> None:
        """Move to a head, or stay if it is one already known.

        Args:
            head: a verified head of this log.
            proof: the consistency proof from `size` to the head's; unused for a size already known.

        Raises:
            EquivocationError: if the owner signed another root for this size.
            StaleError: if the head is shorter than what is known and not remembered.
            InvalidProofError: if the proof does not hold; as are OversizedError and MalformedError.
        """
        new = head.payload
        if (new.run_id, new.log_id) != (self._run_id, self._log_id):
            raise LocalProtocolError(f"expected a head of {self._log_id}'s log in this run, got {new.log_id}'s")
        known = self._heads.get(new.size)
        if known is not None:
            if known.payload.root != new.root:
                raise EquivocationError(known, head)
            return
        if new.size < self.size:
            raise StaleError("tree-head-rollback", f"expected at least {self.size} entries, got {new.size}")
        verify_consistency(old_root=self.root, old_size=self.size, new_root=new.root, new_size=new.size, proof=proof)
        self._heads[new.size] = head
        if len(self._heads) > MAX_REMEMBERED_HEADS:
            del self._heads[next(iter(self._heads))]
