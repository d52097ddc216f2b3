"""Claiming an epoch's shares: what can be paid now is, and why the rest has to wait."""

from dataclasses import dataclass
from functools import partial

from iota_p2p.settlement.contract_client import SettlementContract
from iota_p2p.settlement.errors import ContractRefusalError
from iota_p2p.settlement.records import SettlementRecords
from iota_p2p.settlement.submitter import Submitter


@dataclass(frozen=True, slots=True)
class ClaimReport:
    """What came of one epoch's claims.

    Attributes:
        num_paid: claims that a transaction of ours paid now.
        paid_wei: what they paid.
        waits_for: why nothing could be claimed; empty if all of it is paid.
    """

    num_paid: int = 0
    paid_wei: int = 0
    waits_for: str = ""


def claim_epoch(
    contract: SettlementContract,
    submitter: Submitter,
    records: SettlementRecords,
    epoch: int,
    account: bytes | None = None,
) -> ClaimReport:
    """Claim an epoch's leaves of one account, or of all.

    Raises:
        ContractRefusalError: if the contract refuses one for another reason than time.
        ChainError: if the chain does not answer or mine in time; called again, it goes on where it was.
    """
    state = submitter.ask(lambda: contract.epoch_state(epoch))
    if not state.is_settled:
        return ClaimReport(waits_for="not settled yet")
    tree = next((tree for tree in records.trees(epoch) if tree.root == state.root), None)
    if tree is None:
        return ClaimReport(waits_for="settled with another root than these files have")
    num_paid = paid_wei = 0
    for payout in tree.payouts:
        if account not in (None, payout.account):
            continue
        index = payout.index
        if submitter.ask(partial(contract.is_claimed, epoch, index)):
            continue
        try:
            outcome = contract.claim(submitter, epoch, tree, index)
        except ContractRefusalError as error:
            if error.rule != "dispute-window":
                raise
            return ClaimReport(num_paid, paid_wei, f"in dispute until {state.deadline_s} (Unix seconds)")
        num_paid += outcome.by_us
        paid_wei += payout.amount_wei * outcome.by_us
    return ClaimReport(num_paid, paid_wei)
