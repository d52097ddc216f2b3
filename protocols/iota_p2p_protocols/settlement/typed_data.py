"""What keys of the EVM sign: EIP-712 typed data, written as the plain value that wallets and libraries hash.

Hashing and signing need the EVM's Keccak and secp256k1, which this pure core does not have: `Recover` is how callers
lend it to us. Signatures are EIP-2098's 64 bytes, r and then s with the parity of y in its top bit; the low s only,
so that nobody can make a second signature out of the first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from iota_p2p_protocols.ids import RUN_ID_BYTES

TypedData: TypeAlias = dict[str, Any]  # {"types", "primaryType", "domain", "message"} of EIP-712

# (typed data, signature of 64 bytes) -> the account that signed it; raises InvalidSignatureError.
Recover: TypeAlias = Callable[[TypedData, bytes], bytes]

COMPACT_SIGNATURE_BYTES = 64  # EIP-2098
MAX_ROUND = 255  # the contract keeps a settlement's round in a byte


@dataclass(frozen=True, slots=True)
class ContractAddress:
    """Where a settlement counts: a signature for one contract is worth nothing at another.

    Attributes:
        chain_id: of the network.
        contract: 20 bytes.
    """

    chain_id: int
    contract: bytes


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a quorum of validators signs for an epoch.

    Attributes:
        run_id: the run.
        epoch: whose payouts these are.
        round: how often a settlement of this epoch was voided before; only two of one round contradict each other.
        root: of the payout tree.
        total_wei: what its leaves add up to.
    """

    run_id: bytes
    epoch: int
    round: int
    root: bytes
    total_wei: int


def settlement_typed_data(address: ContractAddress, settlement: Settlement) -> TypedData:
    """Return what a validator's EVM key signs; the contract computes the same digest."""
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Settlement": [
                {"name": "run", "type": "bytes32"},
                {"name": "epoch", "type": "uint256"},
                {"name": "round", "type": "uint256"},
                {"name": "root", "type": "bytes32"},
                {"name": "total", "type": "uint256"},
            ],
        },
        "primaryType": "Settlement",
        "domain": {
            "name": "iota-p2p settlement",
            "version": "1",
            "chainId": address.chain_id,
            "verifyingContract": "0x" + address.contract.hex(),
        },
        "message": {
            "run": settlement.run_id,
            "epoch": settlement.epoch,
            "round": settlement.round,
            "root": settlement.root,
            "total": settlement.total_wei,
        },
    }


def binding_typed_data(run_id: bytes, public_key: bytes) -> TypedData:
    """Return what a payout account's key signs to say that it belongs to a peer.

    Args:
        run_id: the run in which it is paid.
        public_key: the 32-byte Ed25519 key inside the peer id.
    """
    if len(run_id) != RUN_ID_BYTES:
        raise ValueError(f"expected a run id of {RUN_ID_BYTES} bytes, got {len(run_id)}")
    return {
        "types": {
            "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "version", "type": "string"}],
            "PayoutBinding": [{"name": "run", "type": "bytes32"}, {"name": "peerKey", "type": "bytes32"}],
        },
        "primaryType": "PayoutBinding",
        "domain": {"name": "iota-p2p payout", "version": "1"},
        "message": {"run": run_id, "peerKey": public_key},
    }
