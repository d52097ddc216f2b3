"""Random sequences of calls, honest and not: money is conserved, nothing is paid twice, nothing without a quorum."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.settlement.scene import ETHER, FUNDER, OUTSIDER, POT, TERMS, VALIDATORS, Scene, rpc, tree_of

TREES = [tree_of(2, ETHER), tree_of(3, ETHER), tree_of(4, 2 * ETHER)]
CANDIDATES = [*VALIDATORS, OUTSIDER]
EPOCHS = st.integers(0, 3)
TREE_INDICES = st.integers(0, len(TREES) - 1)
WHO = st.integers(0, len(CANDIDATES) - 1)


class Conservation(RuleBasedStateMachine):
    """What comes in, goes out and stays, told by a few lines of Python beside the contract."""

    scene: Scene

    def __init__(self) -> None:
        super().__init__()
        self.snapshot = rpc(self.scene.w3, "evm_snapshot")
        self.held_wei = POT + len(VALIDATORS) * TERMS.bond_wei
        self.num_bonds = len(VALIDATORS)
        self.paid: dict[bytes, int] = {}
        self.claimed: set[tuple[int, int]] = set()
        self.rounds: dict[int, int] = {}

    def teardown(self) -> None:
        assert self.scene.contract.num_seats_held() == self.num_bonds
        rpc(self.scene.w3, "evm_revert", self.snapshot)

    def attempt(self, account: Any, function: str, *arguments: Any, value: int = 0) -> bool:
        """Send a call if the contract takes it; say whether it did."""
        if self.scene.refusal(account, function, *arguments, value=value) != "accepted":
            return False
        self.scene.send(account, function, *arguments, value=value)
        self.held_wei += value
        return True

    @rule(amount=st.integers(0, ETHER))
    def fund(self, amount: int) -> None:
        assert self.attempt(FUNDER, "fund", value=amount)

    @rule(
        epoch=EPOCHS,
        tree=TREE_INDICES,
        who=st.one_of(st.lists(WHO, min_size=3, max_size=4, unique=True), st.lists(WHO, max_size=5)),
        round_=st.sampled_from([None, None, None, 0, 1]),
    )
    def settle(self, epoch: int, tree: int, who: list[int], round_: int | None) -> None:
        current = self.scene.contract.epoch_state(epoch)
        holders = self.scene.contract.seats(epoch)
        signers = [CANDIDATES[index] for index in who]
        used = current.round if round_ is None else round_
        arguments = self.scene.settle_arguments(epoch, TREES[tree], signers, used)
        if self.attempt(OUTSIDER, "settle", *arguments):
            assert not current.is_settled
            assert used == current.round
            accounts = {bytes.fromhex(signer.address[2:]) for signer in signers}
            assert len(accounts) == len(signers) >= 3, "a quorum of distinct validators"
            assert accounts <= holders.keys()
            assert self.scene.contract.epoch_state(epoch).remaining_wei == TREES[tree].total_wei

    @rule(epoch=EPOCHS, tree=TREE_INDICES, index=st.integers(0, 3))
    def claim(self, epoch: int, tree: int, index: int) -> None:
        payouts = TREES[tree].payouts
        payout = payouts[index % len(payouts)]
        state = self.scene.contract.epoch_state(epoch)
        due = self.scene.w3.eth.get_block("latest")["timestamp"] >= state.deadline_s
        accepted = self.attempt(OUTSIDER, "claim", *self.scene.claim_arguments(epoch, TREES[tree], payout.index))
        if accepted:
            assert state.root == TREES[tree].root
            assert (epoch, payout.index) not in self.claimed
            self.claimed.add((epoch, payout.index))
            self.paid[payout.account] = self.paid.get(payout.account, 0) + payout.amount_wei
            self.held_wei -= payout.amount_wei
        else:
            owed = state.root == TREES[tree].root and (epoch, payout.index) not in self.claimed
            assert not (owed and due), "whoever is owed is paid"

    @rule(liar=WHO, epoch=EPOCHS, round_=st.integers(0, 1))
    def prove_equivocation(self, liar: int, epoch: int, round_: int) -> None:
        proof = self.scene.equivocation(CANDIDATES[liar], epoch, TREES[0], TREES[1], round_)
        if self.attempt(FUNDER, "prove_equivocation", *proof):
            assert self.scene.contract.seat(CANDIDATES[liar].address) is None
            self.held_wei -= TERMS.bond_wei // 10
            self.num_bonds -= 1

    @rule(who=WHO, seat=st.integers(0, 5))
    def register(self, who: int, seat: int) -> None:
        self.num_bonds += self.attempt(CANDIDATES[who], "register", seat, bytes(32), value=TERMS.bond_wei)

    @rule(who=WHO)
    def leave(self, who: int) -> None:
        self.attempt(CANDIDATES[who], "leave")

    @rule(who=WHO)
    def withdraw(self, who: int) -> None:
        if self.attempt(CANDIDATES[who], "withdraw"):
            self.held_wei -= TERMS.bond_wei
            self.num_bonds -= 1

    @rule(seconds=st.sampled_from([1, TERMS.dispute_s, TERMS.withdrawal_s]))
    def pass_time(self, seconds: int) -> None:
        self.scene.pass_time(seconds)

    @invariant()
    def nothing_is_lost_or_made(self) -> None:
        contract = self.scene.contract
        unclaimed = sum(contract.epoch_state(epoch).remaining_wei for epoch in range(4))
        assert contract.balance_wei() == self.held_wei
        assert contract.treasury().pot_wei + unclaimed + self.num_bonds * TERMS.bond_wei == self.held_wei

    @invariant()
    def everybody_has_what_was_claimed(self) -> None:
        for account, amount in self.paid.items():
            assert self.scene.balance(account) == amount


def run_machine(scene: Scene, examples: int, steps: int) -> None:
    factory: type[RuleBasedStateMachine] = type("BoundConservation", (Conservation,), {"scene": scene})
    run_state_machine_as_test(
        factory,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_money__is_conserved(scene: Scene) -> None:
    run_machine(scene, examples=2, steps=15)


@pytest.mark.slow
def test_money__is_conserved_at_length(scene: Scene) -> None:
    run_machine(scene, examples=20, steps=40)
