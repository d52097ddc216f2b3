"""Does the contract hold and pay what the signed results say? Everything is read anew; nobody's word is taken."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from iota_p2p.audit.failure import Check, Failure
from iota_p2p.settlement.contract_client import SettlementContract
from iota_p2p.settlement.contract_state import ClaimedEvent
from iota_p2p.settlement.records import SettlementRecords
from iota_p2p_protocols.settlement.payout_tree import PayoutTree


@dataclass(frozen=True, slots=True)
class ChainAudit:
    """What an audit of a contract found.

    Attributes:
        failures: what is wrong.
        num_settled, num_claimed, paid_wei: what was compared.
        pending: epochs with a result that are not settled yet.
    """

    failures: tuple[Failure, ...]
    num_settled: int
    num_claimed: int
    paid_wei: int
    pending: tuple[int, ...]


def audit_chain(contract: SettlementContract, records: SettlementRecords) -> ChainAudit:
    """Compare a contract with signed records.

    The quorum behind the results themselves is not looked at: `audit verify` does that.

    Raises:
        ChainError: if the RPC does not answer.
    """
    claims: dict[int, list[ClaimedEvent]] = defaultdict(list)
    for claim in contract.claimed_events():
        claims[claim.epoch].append(claim)
    epochs = sorted({event.epoch for event in contract.settled_events()})
    states = {epoch: state for epoch in epochs if (state := contract.epoch_state(epoch)).is_settled}
    failures = list(_check_contract(contract, records, sum(state.remaining_wei for state in states.values())))
    for epoch, state in states.items():
        tree = next((tree for tree in records.trees(epoch) if tree.root == state.root), None)
        if tree is None:
            known = "another result" if records.results.get(epoch) else "no result"
            reason = f"expected the root of a signed result, got {state.root.hex()[:16]}: these files hold {known}"
            failures.append(Failure(Check.SETTLEMENT, f"epoch {epoch}", "settlement-root", reason))
            continue
        failures.extend(_check_epoch(epoch, tree, claims[epoch], state.remaining_wei))
    failures.extend(
        Failure(Check.SETTLEMENT, f"epoch {epoch}", "claim-unsettled", "expected no claims of an epoch not settled")
        for epoch in claims.keys() - states.keys()
        if claims[epoch]
    )
    every = [claim for each in claims.values() for claim in each]
    pending = tuple(sorted(epoch for epoch in records.results if epoch not in states))
    return ChainAudit(tuple(failures), len(states), len(every), sum(claim.amount_wei for claim in every), pending)


def _check_contract(contract: SettlementContract, records: SettlementRecords, unclaimed_wei: int) -> Iterator[Failure]:
    subject = f"contract {contract.address}"
    if not contract.is_genuine():
        yield Failure(Check.SETTLEMENT, subject, "contract-code", "expected this project's code, got another")
    terms = contract.terms()
    if terms.run_id != records.run_id:
        reason = f"expected run {records.run_id.hex()[:16]}, got {terms.run_id.hex()[:16]}"
        yield Failure(Check.SETTLEMENT, subject, "contract-run", reason)
    owed = contract.treasury().pot_wei + unclaimed_wei + contract.num_seats_held() * terms.bond_wei
    if contract.balance_wei() < owed:
        reason = f"expected at least {owed} wei of pot, bonds and unclaimed shares, got {contract.balance_wei()}"
        yield Failure(Check.SETTLEMENT, subject, "contract-balance", reason)


def _check_epoch(epoch: int, tree: PayoutTree, claims: list[ClaimedEvent], remaining_wei: int) -> Iterator[Failure]:
    for index, times in Counter(claim.index for claim in claims).items():
        if times > 1:
            reason = f"expected one payment, got {times}"
            yield Failure(Check.SETTLEMENT, f"epoch {epoch}, leaf {index}", "claim-twice", reason)
    for claim in claims:
        payout = tree.payouts[claim.index] if claim.index < len(tree.payouts) else None
        if payout is None or (payout.account, payout.amount_wei) != (claim.account, claim.amount_wei):
            expected = "no such leaf" if payout is None else f"{payout.amount_wei} wei to {payout.account.hex()}"
            reason = f"expected {expected}, got {claim.amount_wei} wei to {claim.account.hex()}"
            yield Failure(Check.SETTLEMENT, f"epoch {epoch}, leaf {claim.index}", "claim-amount", reason)
    expected_wei = tree.total_wei - sum(claim.amount_wei for claim in claims)
    if remaining_wei != expected_wei:
        reason = f"expected {expected_wei} wei unclaimed, got {remaining_wei}"
        yield Failure(Check.SETTLEMENT, f"epoch {epoch}", "settlement-remaining", reason)
