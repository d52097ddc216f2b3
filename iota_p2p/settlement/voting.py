"""Signing as somebody of the chain: bindings of peers, and validators' votes."""

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_canonical_address

from iota_p2p.ledger.ledger import Ledger
from iota_p2p.settlement.account import sign_typed
from iota_p2p_crypto.domains import SETTLEMENT_VOTE
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.settlement.payout_binding import LIFETIME_S, PayoutBinding
from iota_p2p_protocols.settlement.settlement_vote import SettlementVote, total_to_bytes
from iota_p2p_protocols.settlement.typed_data import (
    ContractAddress,
    Settlement,
    binding_typed_data,
    settlement_typed_data,
)


def seal_binding(identity: Identity, account: LocalAccount, run_id: bytes, now_s: int, sequence: int) -> bytes:
    """Return the envelope by which a peer and an account say that they belong together."""
    binding = PayoutBinding(
        run_id=run_id,
        sequence=sequence,
        issued_s=now_s,
        expires_s=now_s + LIFETIME_S,
        account=to_canonical_address(account.address),
        signature=sign_typed(account, binding_typed_data(run_id, identity.public_key)),
    )
    return seal_message(binding, identity)


def seal_vote(
    identity: Identity, account: LocalAccount, address: ContractAddress, settlement: Settlement, now_s: int
) -> bytes:
    """Return a validator's vote. Whoever calls it twice for one epoch and round must mean the same settlement."""
    vote = SettlementVote(
        run_id=settlement.run_id,
        sequence=settlement.epoch << 8 | settlement.round,
        issued_s=now_s,
        expires_s=now_s + SettlementVote.max_lifetime_s,
        chain_id=address.chain_id,
        contract=address.contract,
        epoch=settlement.epoch,
        round=settlement.round,
        root=settlement.root,
        total=total_to_bytes(settlement.total_wei),
        signature=sign_typed(account, settlement_typed_data(address, settlement)),
    )
    return seal_message(vote, identity)


def vote_once(
    ledger: Ledger,
    identity: Identity,
    account: LocalAccount,
    address: ContractAddress,
    settlement: Settlement,
    *,
    now_s: int,
) -> bytes:
    """Return a validator's vote, the first it ever signed for the epoch and round: two that differ cost its bond.

    Raises:
        UserError: if that vote was for another settlement.
        LedgerError: if it cannot be kept; then nothing was signed that anybody could see.
    """
    # Made before the transaction, which others who write this ledger wait for; nobody sees it if another was first.
    made = seal_vote(identity, account, address, settlement, now_s)
    kind = f"{SETTLEMENT_VOTE.name}/{address.contract.hex()}"
    envelope = ledger.sign_once(kind, settlement.epoch << 8 | settlement.round, lambda: made)
    if open_signed(envelope, SettlementVote).payload.settlement != settlement:
        raise UserError(
            f"this validator has voted for another settlement of epoch {settlement.epoch}: a second vote "
            "would cost its bond"
        )
    return envelope
