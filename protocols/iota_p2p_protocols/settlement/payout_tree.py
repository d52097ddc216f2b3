"""Payout trees: who gets how much for an epoch, under one root that a contract can check claims against.

The tree is RFC 6962's over SHA-256, so that anybody who can audit our logs can audit payouts, without the EVM's own
hash. It is padded with empty leaves to a power of two: then the bits of a leaf's index say on which side its siblings
stand, which is all the contract has to know. A leaf is index:32 | account:20 | amount:32, big-endian.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_crypto.merkle import MerkleTree
from iota_p2p_protocols.errors import LocalProtocolError
from iota_p2p_protocols.scoring.result import EpochResult

ACCOUNT_BYTES = 20
WEI_PER_UNIT = 10**9  # one unit of a result is a gwei; a whole pot of 2^60 units still fits the contract's 112 bits
MAX_AMOUNT_WEI = 2**112 - 1  # the contract's word for what is unclaimed


@dataclass(frozen=True, slots=True)
class Payout:
    """One leaf: what an account may claim.

    Attributes:
        index: its place in the tree.
        account: 20 bytes of an EVM address.
        amount_wei: how much.
    """

    index: int
    account: bytes
    amount_wei: int

    def leaf(self) -> bytes:
        """Return the leaf's data, as the contract puts it together."""
        return self.index.to_bytes(32, "big") + self.account + self.amount_wei.to_bytes(32, "big")


class PayoutTree:
    """All payouts of one epoch; `payouts[i]` is leaf i."""

    def __init__(self, shares: Sequence[tuple[bytes, int]]) -> None:
        """Build the tree of (account, wei) pairs in their order; 1,000 take some ten milliseconds."""
        if any(len(account) != ACCOUNT_BYTES or amount <= 0 for account, amount in shares):
            raise LocalProtocolError(f"expected accounts of {ACCOUNT_BYTES} bytes and amounts above 0, got others")
        self.payouts = tuple(Payout(index, account, amount) for index, (account, amount) in enumerate(shares))
        self.total_wei = sum(payout.amount_wei for payout in self.payouts)
        if self.total_wei > MAX_AMOUNT_WEI:
            raise LocalProtocolError(f"expected at most {MAX_AMOUNT_WEI} wei in all, got {self.total_wei}")
        self._tree = MerkleTree(payout.leaf() for payout in self.payouts)
        for _ in range(_power_of_two(len(self.payouts)) - len(self.payouts)):
            self._tree.append(b"")
        self.root = self._tree.root()

    def proof(self, index: int) -> tuple[Digest, ...]:
        """Return the siblings from leaf to root, as `claim` wants them."""
        if not 0 <= index < len(self.payouts):
            raise LocalProtocolError(f"expected a leaf below {len(self.payouts)}, got {index}")
        return self._tree.prove_inclusion(index)


def payout_tree(result: EpochResult, accounts: Mapping[PeerId, bytes]) -> PayoutTree:
    """Return the tree of a result, in its order of peers.

    A peer without an account gets no leaf: its share stays in the pot. Shares of 0 get none either.

    Args:
        result: an epoch's result; whoever signs the tree has checked it.
        accounts: who is paid where, from bindings (`accounts_of`). Validators that count different bindings get
            different roots, so they are part of what is proposed.
    """
    shares = [
        (accounts[PeerId(peer_id)], units * WEI_PER_UNIT)
        for peer_id, _, units in sorted(result.payouts, key=lambda row: peer_id_to_bytes(PeerId(row[0])))
        if units and PeerId(peer_id) in accounts
    ]
    return PayoutTree(shares)


def _power_of_two(count: int) -> int:
    """Return the smallest power of two that is at least `count` and 1."""
    return 1 << max(count - 1, 0).bit_length()
