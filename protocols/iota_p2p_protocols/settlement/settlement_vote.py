"""Settlement votes: how validators collect the signatures that the contract wants to see.

A vote carries a validator's EVM signature under its peer's own. It is checked twice: the envelope as ever, and the
signature inside against the accounts that hold seats, which only the contract knows.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import SETTLEMENT_VOTE, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_protocols.errors import InvalidSignatureError
from iota_p2p_protocols.message import UINT63_MAX, Count, DigestField, SignedMessage
from iota_p2p_protocols.settlement.payout_tree import ACCOUNT_BYTES, MAX_AMOUNT_WEI
from iota_p2p_protocols.settlement.typed_data import (
    COMPACT_SIGNATURE_BYTES,
    MAX_ROUND,
    ContractAddress,
    Recover,
    Settlement,
    settlement_typed_data,
)

_TOTAL_BYTES = 14  # 112 bits, as the contract keeps it; wei exceed the integers of the canonical encoding


class SettlementVote(SignedMessage):
    """One validator's signature for one settlement.

    Attributes:
        chain_id, contract: where it counts.
        epoch, round, root, total: what was signed (`Settlement`); the total as 14 bytes big-endian, in wei.
        signature: EIP-712 and EIP-2098, by the account that holds a seat.
    """

    domain: ClassVar[Domain] = SETTLEMENT_VOTE
    max_lifetime_s: ClassVar[int] = 30 * 86_400  # as the result it follows from

    chain_id: Annotated[int, Field(ge=1, le=UINT63_MAX)]
    contract: Annotated[bytes, Field(min_length=ACCOUNT_BYTES, max_length=ACCOUNT_BYTES)]
    epoch: Count
    round: Annotated[int, Field(ge=0, le=MAX_ROUND)]
    root: DigestField
    total: Annotated[bytes, Field(min_length=_TOTAL_BYTES, max_length=_TOTAL_BYTES)]
    signature: Annotated[bytes, Field(min_length=COMPACT_SIGNATURE_BYTES, max_length=COMPACT_SIGNATURE_BYTES)]

    @property
    def address(self) -> ContractAddress:
        """Where it counts."""
        return ContractAddress(self.chain_id, self.contract)

    @property
    def settlement(self) -> Settlement:
        """What it is for."""
        total_wei = int.from_bytes(self.total, "big")
        return Settlement(self.run_id, self.epoch, self.round, self.root, total_wei)


def total_to_bytes(total_wei: int) -> bytes:
    """Return a total as votes carry it."""
    if not 0 <= total_wei <= MAX_AMOUNT_WEI:
        raise ValueError(f"expected a total of at most {MAX_AMOUNT_WEI} wei, got {total_wei}")
    return total_wei.to_bytes(_TOTAL_BYTES, "big")


def signatures_for(
    address: ContractAddress,
    settlement: Settlement,
    votes: Iterable[Verified[SettlementVote]],
    recover: Recover,
    seats: Mapping[bytes, int],
) -> tuple[bytes, ...]:
    """Return one signature for each seat whose holder voted for exactly this settlement, by seat.

    Votes for another settlement, by accounts without a seat or with a signature that is none are passed over.

    Args:
        address: where it is to be settled.
        settlement: what is.
        votes: whatever was heard.
        recover: the EVM's signature check.
        seats: which account holds which seat in the epoch.
    """
    typed_data = settlement_typed_data(address, settlement)
    found: dict[int, bytes] = {}
    for vote in votes:
        if (vote.payload.address, vote.payload.settlement) != (address, settlement):
            continue
        try:
            account = recover(typed_data, vote.payload.signature)
        except InvalidSignatureError:
            continue
        if account in seats:
            found[seats[account]] = vote.payload.signature
    return tuple(found[seat] for seat in sorted(found))
