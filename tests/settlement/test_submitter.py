"""The client against everything that happens to clients: deaths, outages, races, reorganisations."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests
from eth_account import Account
from web3.exceptions import ContractLogicError

from iota_p2p.settlement.errors import ContractRefusalError, RpcUnavailableError
from iota_p2p.settlement.rpc import refusal_of
from iota_p2p.settlement.submitter import Outcome
from iota_p2p_crypto.errors import UserError
from tests.settlement.faults import Client, Executioner, Killed, nothing
from tests.settlement.scene import ETHER, OUTSIDER, POT, TERMS, VALIDATORS, Scene, rpc, send_raw, tree_of

TREE = tree_of(5)
GIFT = ETHER // 7
Work = Callable[[Client], Outcome]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "settlement.sqlite"


def fund(client: Client) -> Outcome:
    return client.contract.fund(client.submitter, GIFT, "gift")


def settle_work(scene: Scene) -> Work:
    settlement = scene.settlement(0, TREE)
    signatures = [b"".join(scene.sign(signer, settlement)) for signer in VALIDATORS[:3]]
    return lambda client: client.contract.settle(client.submitter, settlement, signatures)


def claim_work(client: Client) -> Outcome:
    return client.contract.claim(client.submitter, 0, TREE, 1)


def killed_everywhere(scene: Scene, url: str, journal: Path, work: Work) -> Iterator[int]:
    """Do some work once for each step at which it can die, finish it afterwards, and yield how often it was done."""
    for kill_at in count(1):
        snapshot = rpc(scene.w3, "evm_snapshot")
        file = journal.with_name(f"{kill_at}.sqlite")
        nonce = scene.w3.eth.get_transaction_count(OUTSIDER.address)
        executioner = Executioner(kill_at)
        survived = False
        with (
            suppress(Killed),
            Client(url, scene.contract.address, OUTSIDER, file, before=executioner, after=executioner) as client,
        ):
            work(client)
            survived = True
        with Client(url, scene.contract.address, OUTSIDER, file) as client:
            work(client)
        yield scene.w3.eth.get_transaction_count(OUTSIDER.address) - nonce
        rpc(scene.w3, "evm_revert", snapshot)
        if survived:
            assert executioner.steps > 10, "there was something to die of"
            return


def test_fund__is_paid_once_whichever_step_it_is_killed_at(scene: Scene, rpc_url: str, journal: Path) -> None:
    for done in killed_everywhere(scene, rpc_url, journal, fund):
        assert done == 1
        assert scene.contract.treasury().pot_wei == POT + GIFT


@pytest.mark.slow
def test_claim__is_paid_once_whichever_step_it_is_killed_at(scene: Scene, rpc_url: str, journal: Path) -> None:
    scene.settle(0, TREE)
    scene.pass_time(TERMS.dispute_s)
    for done in killed_everywhere(scene, rpc_url, journal, claim_work):
        assert done == 1
        assert scene.balance(TREE.payouts[1].account) == TREE.payouts[1].amount_wei


@pytest.mark.slow
def test_settle__happens_once_whichever_step_it_is_killed_at(scene: Scene, rpc_url: str, journal: Path) -> None:
    for done in killed_everywhere(scene, rpc_url, journal, settle_work(scene)):
        assert done == 1
        assert scene.contract.epoch_state(0).root == TREE.root


def test_settle__of_two_at_once_one_succeeds_and_the_other_notices(scene: Scene, rpc_url: str, journal: Path) -> None:
    work = settle_work(scene)
    noticed = 0
    for interrupt_at in count(1, 9):
        snapshot = rpc(scene.w3, "evm_snapshot")
        folder = journal.with_name(str(interrupt_at))
        steps = Interruption(interrupt_at, partial(_by_somebody_else, scene, rpc_url, folder, work))
        before = len(scene.contract.settled_events())
        with Client(rpc_url, scene.contract.address, OUTSIDER, folder / "a", before=steps) as client:
            outcome = work(client)
        assert len(scene.contract.settled_events()) == before + 1
        rpc(scene.w3, "evm_revert", snapshot)
        if not steps.interrupted:
            break
        noticed += not outcome.by_us
    assert noticed >= 2, "the other was first at several steps"


def _by_somebody_else(scene: Scene, url: str, folder: Path, work: Work) -> None:
    with Client(url, scene.contract.address, VALIDATORS[0], folder / "b") as rival:
        work(rival)


class Interruption:
    """Does something once, at a step of somebody else's work."""

    def __init__(self, at: int, action: Callable[[], Any]) -> None:
        self.interrupted = False
        self._left = at
        self._action = action

    def __call__(self, _: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.interrupted = True
            self._action()


def test_settle__reject_when_another_root_was_settled(scene: Scene, rpc_url: str, journal: Path) -> None:
    work = settle_work(scene)
    scene.settle(0, tree_of(6))
    with (
        Client(rpc_url, scene.contract.address, OUTSIDER, journal) as client,
        pytest.raises(ContractRefusalError) as refused,
    ):
        work(client)
    assert refused.value.rule == "settled-already"


def test_claim__can_be_tried_again_after_a_refusal(scene: Scene, rpc_url: str, journal: Path) -> None:
    scene.settle(0, TREE)
    with Client(rpc_url, scene.contract.address, OUTSIDER, journal) as client:
        with pytest.raises(ContractRefusalError, match="dispute-window"):
            claim_work(client)
        scene.pass_time(TERMS.dispute_s)
        assert claim_work(client).by_us


def test_outage__lost_answers_do_not_repeat_a_payment(scene: Scene, rpc_url: str, journal: Path) -> None:
    random = Random(7)  # noqa: S311 - a seeded test

    def flaky(_: str) -> None:
        if random.random() < 0.4:
            raise requests.ConnectionError("reset")

    with Client(rpc_url, scene.contract.address, OUTSIDER, journal, after=flaky) as client:
        assert fund(client).by_us
    assert scene.contract.treasury().pot_wei == POT + GIFT


def test_outage__gives_up_in_the_end_and_goes_on_later(scene: Scene, rpc_url: str, journal: Path) -> None:
    def cut_at_sending(method: str) -> None:
        if method == "eth_sendRawTransaction":
            raise requests.ConnectionError("the line is cut")

    address = scene.contract.address
    for before, after in ((cut_at_sending, nothing), (nothing, cut_at_sending)):
        client = Client(rpc_url, address, OUTSIDER, journal, polls=3, before=before, after=after)
        with client, pytest.raises(RpcUnavailableError):
            fund(client)
    with Client(rpc_url, scene.contract.address, OUTSIDER, journal) as client:
        assert fund(client).by_us
    assert scene.contract.treasury().pot_wei == POT + GIFT


def test_reorganisation__what_vanished_is_sent_again(scene: Scene, rpc_url: str, journal: Path) -> None:
    snapshot = rpc(scene.w3, "evm_snapshot")
    with Client(rpc_url, scene.contract.address, OUTSIDER, journal) as client:
        assert fund(client).by_us
        rpc(scene.w3, "evm_revert", snapshot)
        assert scene.contract.treasury().pot_wei == POT
        assert fund(client).by_us
        assert fund(client).by_us
    assert scene.contract.treasury().pot_wei == POT + GIFT


def test_reorganisation__counts_only_what_is_deep(scene: Scene, rpc_url: str, journal: Path) -> None:
    snapshot = rpc(scene.w3, "evm_snapshot")
    turns = iter(["mine", "revert", "mine", "mine", "mine"])

    def sleep(_: float) -> None:
        if next(turns) == "revert":
            rpc(scene.w3, "evm_revert", snapshot)
        else:
            rpc(scene.w3, "evm_mine")

    client = Client(rpc_url, scene.contract.address, OUTSIDER, journal, sleep=sleep, confirmations=2)
    with client:
        receipt = fund(client).receipt
    assert receipt is not None
    assert scene.w3.eth.block_number >= receipt["blockNumber"] + 2
    assert scene.contract.treasury().pot_wei == POT + GIFT


def test_reorganisation__somebody_elses_settlement_counts_only_when_deep(
    scene: Scene, rpc_url: str, journal: Path
) -> None:
    snapshot = rpc(scene.w3, "evm_snapshot")
    work = settle_work(scene)
    scene.settle(0, TREE)
    turns = iter(["mine", "revert", "mine", "mine", "mine"])

    def sleep(_: float) -> None:
        if next(turns) == "revert":
            rpc(scene.w3, "evm_revert", snapshot)
        else:
            rpc(scene.w3, "evm_mine")

    client = Client(rpc_url, scene.contract.address, VALIDATORS[0], journal, sleep=sleep, confirmations=2)
    with client:
        assert work(client).by_us, "the other's vanished"
    assert scene.contract.epoch_state(0).is_settled


def test_nonce__taken_by_another_wallet_is_not_the_end(scene: Scene, rpc_url: str, journal: Path) -> None:
    executioner = Executioner()

    def die_when_committed(step: str) -> None:
        executioner(step)
        if step == "committed":
            raise Killed

    with (
        suppress(Killed),
        Client(rpc_url, scene.contract.address, OUTSIDER, journal, before=die_when_committed) as client,
    ):
        fund(client)
    send_raw(scene.w3, OUTSIDER, OUTSIDER.address, "0x")
    with Client(rpc_url, scene.contract.address, OUTSIDER, journal) as client:
        assert fund(client).by_us
        nonces = [attempt.nonce for attempt in client.journal.attempts()]
    assert nonces == [nonces[0], nonces[0] + 1]
    assert scene.contract.treasury().pot_wei == POT + GIFT


def test_fee__is_raised_under_the_same_nonce_when_nobody_mines(scene: Scene, rpc_url: str, journal: Path) -> None:
    client = Client(rpc_url, scene.contract.address, OUTSIDER, journal, num_forgotten=70)
    with client:
        assert fund(client).by_us
        attempts = client.journal.attempts()
    assert len({attempt.nonce for attempt in attempts}) == 1
    fees = [attempt.max_fee for attempt in attempts]
    assert len(fees) >= 2
    assert all(high * 8 >= low * 9 for low, high in pairwise(fees))
    assert scene.contract.treasury().pot_wei == POT + GIFT


@pytest.mark.slow
def test_fee__is_paid_once_whichever_step_of_raising_it_is_killed_at(scene: Scene, rpc_url: str, journal: Path) -> None:
    address, num_forgotten = scene.contract.address, 31  # the first transaction, and what is sent until the fee rises
    counting = Executioner()
    snapshot = rpc(scene.w3, "evm_snapshot")
    with Client(
        rpc_url, address, OUTSIDER, journal, before=counting, after=counting, num_forgotten=num_forgotten
    ) as one:
        assert fund(one).by_us
    for kill_at in range(counting.steps - 12, counting.steps + 1):
        rpc(scene.w3, "evm_revert", snapshot)
        snapshot = rpc(scene.w3, "evm_snapshot")
        file = journal.with_name(f"{kill_at}.sqlite")
        doomed = Executioner(kill_at)
        with (
            suppress(Killed),
            Client(rpc_url, address, OUTSIDER, file, before=doomed, after=doomed, num_forgotten=num_forgotten) as one,
        ):
            fund(one)
        with Client(rpc_url, address, OUTSIDER, file) as other:
            fund(other)
            assert len({attempt.nonce for attempt in other.journal.attempts()}) == 1
        assert scene.contract.treasury().pot_wei == POT + GIFT


REASON = "0x08c379a0" + (32).to_bytes(32).hex() + (6).to_bytes(32).hex() + b"quorum".hex().ljust(64, "0")


@pytest.mark.parametrize(
    ("message", "data", "rule"),
    [
        ("execution reverted: quorum", REASON, "quorum"),  # go-ethereum and most others
        ("execution reverted: quorum", None, "quorum"),  # py-evm
        ("execution reverted: Error: VM Exception while ... 'quorum'", {"data": REASON}, "quorum"),  # Hardhat
        ("execution reverted", "0x", "execution reverted"),
        (None, None, "no-reason"),
        ("no", REASON[:20], "no"),
        ("no", {"data": "0x08c379a0nonsense"}, "no"),
        ("no", {"data": REASON[:74] + "ff" * 32 + "41" * 999}, "A" * 64),
    ],
)
def test_refusal__has_the_contracts_own_words_whatever_the_node_makes_of_them(
    message: str | None, data: Any, rule: str
) -> None:
    assert refusal_of(ContractLogicError(message, data=data)).rule == rule


def test_account__without_money_is_told_so(scene: Scene, rpc_url: str, journal: Path) -> None:
    client = Client(rpc_url, scene.contract.address, Account.create(), journal)
    with client, pytest.raises(UserError, match="cannot pay"):
        fund(client)
