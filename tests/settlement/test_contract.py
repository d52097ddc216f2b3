"""The contract on a real EVM: what it pays, and by which rule it refuses everything else."""

from typing import Any

import pytest
from web3.exceptions import ContractLogicError
from web3.types import Wei

from iota_p2p.settlement.account import typed_digest
from iota_p2p.settlement.artifact import ARTIFACT_PATH, compile_artifact
from iota_p2p_protocols.settlement.payout_tree import PayoutTree
from iota_p2p_protocols.settlement.typed_data import settlement_typed_data
from tests.settlement.scene import (
    ETHER,
    FUNDER,
    NUM_VALIDATORS,
    OUTSIDER,
    POT,
    TERMS,
    VALIDATORS,
    Scene,
    deploy_scene,
    payee,
    tree_of,
)

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
TREE = tree_of(5)
OTHER = tree_of(6)


def settled(scene: Scene, tree: PayoutTree = TREE, epoch: int = 0) -> Scene:
    """The scene with an epoch settled and its dispute window over."""
    scene.settle(epoch, tree)
    scene.pass_time(TERMS.dispute_s)
    return scene


@pytest.mark.slow
def test_artifact__is_what_the_source_compiles_to() -> None:
    assert ARTIFACT_PATH.read_text() == compile_artifact(), "run python -m iota_p2p.settlement.artifact"


def test_digest__is_the_same_in_the_contract_and_in_typed_data(scene: Scene) -> None:
    settlement = scene.settlement(3, TREE, round_=7)
    ours = typed_digest(settlement_typed_data(scene.contract.signing_address(), settlement))
    theirs = scene.contract._read("settlement_digest", 3, 7, settlement.root, settlement.total_wei)
    assert ours == theirs


def test_claims__pay_everybody_exactly_the_share(scene: Scene) -> None:
    settled(scene)
    before = scene.balance(scene.contract.address)
    for payout in TREE.payouts:
        scene.claim(0, TREE, payout.index)
    assert [scene.balance(payout.account) for payout in TREE.payouts] == [one.amount_wei for one in TREE.payouts]
    assert before - scene.balance(scene.contract.address) == TREE.total_wei
    assert scene.contract.epoch_state(0).remaining_wei == 0
    assert scene.contract.treasury().pot_wei == POT - TREE.total_wei
    assert {(event.index, event.amount_wei) for event in scene.contract.claimed_events()} >= {
        (one.index, one.amount_wei) for one in TREE.payouts
    }


def test_single_payout__needs_no_proof(scene: Scene) -> None:
    tree = tree_of(1)
    settled(scene, tree)
    scene.claim(0, tree, 0)
    assert scene.balance(payee(0)) == tree.total_wei


def test_claim__reject_twice(scene: Scene) -> None:
    settled(scene)
    scene.claim(0, TREE, 2)
    assert scene.refusal(OUTSIDER, "claim", *scene.claim_arguments(0, TREE, 2)) == "claimed-already"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({3: ETHER}, "leaf-proof"),  # another amount
        ({2: OUTSIDER.address}, "leaf-proof"),  # another account
        ({1: 1}, "leaf-proof"),  # another index
        ({0: 1}, "not-settled"),  # another epoch
        ({1: 2 + 8}, "leaf-index"),  # the same path with a bit above the tree: it would be paid again
        ({4: []}, "leaf-index"),
    ],
)
def test_claim__reject_when_anything_is_changed(scene: Scene, change: dict[int, Any], rule: str) -> None:
    settled(scene)
    arguments = list(scene.claim_arguments(0, TREE, 2))
    for position, value in change.items():
        arguments[position] = value
    assert scene.refusal(OUTSIDER, "claim", *arguments) == rule


def test_claim__reject_with_the_proof_of_another_epoch(scene: Scene) -> None:
    scene.settle(0, TREE)
    settled(scene, OTHER, epoch=1)
    _, *rest = scene.claim_arguments(0, TREE, 2)
    assert scene.refusal(OUTSIDER, "claim", 1, *rest) == "leaf-proof"


def test_claim__reject_an_inner_node_passed_off_as_a_leaf(scene: Scene) -> None:
    settled(scene)
    _, index, account, amount, proof = scene.claim_arguments(0, TREE, 0)
    assert scene.refusal(OUTSIDER, "claim", 0, index, account, amount, proof[1:]) == "leaf-proof"


def test_claim__reject_before_the_dispute_window_ends(scene: Scene) -> None:
    scene.settle(0, TREE)
    assert scene.refusal(OUTSIDER, "claim", *scene.claim_arguments(0, TREE, 0)) == "dispute-window"


def test_claim__reject_what_exceeds_the_epochs_total(scene: Scene) -> None:
    # A quorum signs a total below what its leaves add up to: other epochs' money must not pay for it.
    short = tree_of(5)
    short.total_wei = short.payouts[0].amount_wei + short.payouts[1].amount_wei
    settled(scene, short)
    scene.settle(1, OTHER)
    scene.claim(0, short, 0)
    scene.claim(0, short, 1)
    assert scene.refusal(OUTSIDER, "claim", *scene.claim_arguments(0, short, 2)) == "total-exceeded"


def test_settle__reject_twice_even_with_other_signers(scene: Scene) -> None:
    scene.settle(0, TREE)
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(0, TREE, VALIDATORS[1:])) == "settled-already"
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(0, OTHER)) == "settled-already"


def test_settle__reject_too_few_or_repeated_signatures(scene: Scene) -> None:
    few = scene.settle_arguments(0, TREE, VALIDATORS[:2])
    assert scene.refusal(OUTSIDER, "settle", *few) == "quorum"
    repeated = scene.settle_arguments(0, TREE, [VALIDATORS[0], VALIDATORS[1], VALIDATORS[0]])
    assert scene.refusal(OUTSIDER, "settle", *repeated) == "signer-twice"


def test_settle__reject_an_outsider_among_the_signers(scene: Scene) -> None:
    arguments = scene.settle_arguments(0, TREE, [*VALIDATORS[:2], OUTSIDER])
    assert scene.refusal(OUTSIDER, "settle", *arguments) == "not-a-validator"


@pytest.mark.parametrize("what", ["epoch", "round", "root", "total", "contract"])
def test_settle__reject_signatures_made_for_something_else(scene: Scene, what: str) -> None:
    epoch, root, total, checkpoint, signatures = scene.settle_arguments(0, TREE, round_=int(what == "round"))
    match what:
        case "epoch":
            epoch = 1
        case "root":
            root = bytes(OTHER.root)
        case "total":
            total += 1
        case "contract":
            scene = Scene(scene.w3, type(scene.contract)(scene.w3, _second_contract(scene)))
    # What is recovered from a signature of other words is somebody, but nobody who holds a seat.
    assert scene.refusal(OUTSIDER, "settle", epoch, root, total, checkpoint, signatures) == "not-a-validator"


def _second_contract(scene: Scene) -> str:
    return deploy_scene(scene.w3).contract.address


def test_settle__reject_the_malleable_twin_of_a_signature(scene: Scene) -> None:
    epoch, root, total, checkpoint, signatures = scene.settle_arguments(0, TREE)
    r, vs = signatures[0]
    word = int.from_bytes(vs, "big")
    parity, low_s = word >> 255, word & (2**255 - 1)
    assert low_s <= HALF_ORDER
    # With an order above 2^255 the twin's s may not fit the compact form at all; one that does is refused.
    high_s = ORDER - low_s
    twin = (r, ((1 - parity) << 255 | high_s & (2**255 - 1)).to_bytes(32, "big"))
    rules = {scene.refusal(OUTSIDER, "settle", epoch, root, total, checkpoint, [twin, *signatures[1:]])}
    garbage = (r, (HALF_ORDER + 1).to_bytes(32, "big"))
    assert scene.refusal(OUTSIDER, "settle", epoch, root, total, checkpoint, [garbage, *signatures[1:]]) == (
        "signature-high-s"
    )
    assert rules <= {"signature-high-s", "not-a-validator", "signature"}


def test_settle__reject_a_signature_of_nobody(scene: Scene) -> None:
    epoch, root, total, checkpoint, signatures = scene.settle_arguments(0, TREE)
    nobody = (bytes(32), bytes(32))
    arguments = (epoch, root, total, checkpoint, [nobody, *signatures[1:]])
    assert scene.refusal(OUTSIDER, "settle", *arguments) == "signature"


def test_settle__reject_more_than_the_pot(scene: Scene) -> None:
    rich = tree_of(2, amount=POT)
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(0, rich)) == "pot-short"


def test_settle__reject_epochs_far_ahead(scene: Scene) -> None:
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(64, TREE)) == "epoch-ahead"
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(63, TREE)) == "accepted"


def test_settle__takes_a_skipped_epoch_later(scene: Scene) -> None:
    scene.settle(2, TREE)
    scene.settle(0, OTHER)
    assert scene.contract.treasury().next_epoch == 3
    assert scene.contract.epoch_state(0).root == OTHER.root


def test_settle__reject_when_seats_are_too_few(scene: Scene) -> None:
    lonely = deploy_scene(scene.w3, num_validators=2)
    assert lonely.refusal(OUTSIDER, "settle", *lonely.settle_arguments(0, TREE, VALIDATORS[:2])) == "seats-few"


def test_register__counts_from_the_epoch_after_the_next(scene: Scene) -> None:
    scene.settle(0, TREE)
    scene.send(OUTSIDER, "register", 9, b"\x09" * 32, value=ETHER)
    seat = scene.contract.seat(OUTSIDER.address)
    assert seat is not None
    assert seat.since == 2
    with_newcomer = [*VALIDATORS[:2], OUTSIDER]
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(1, TREE, with_newcomer)) == "not-a-validator"
    scene.settle(1, TREE)
    # Five seats from here on: three signatures are no longer enough.
    assert scene.contract.quorum(2) == 4
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(2, TREE, with_newcomer)) == "quorum"
    scene.settle(2, TREE, [*VALIDATORS[:3], OUTSIDER])


def test_settle__an_old_epoch_is_judged_by_the_seats_of_its_time(scene: Scene) -> None:
    scene.settle(1, TREE)
    scene.send(OUTSIDER, "register", 9, b"\x09" * 32, value=ETHER)
    arguments = scene.settle_arguments(0, OTHER)
    assert scene.refusal(OUTSIDER, "settle", *arguments[:3], 7, arguments[4]) == "checkpoint"
    scene.settle(0, OTHER)


@pytest.mark.parametrize(
    ("seat", "value", "rule"), [(64, ETHER, "seat-range"), (0, ETHER, "seat-taken"), (9, ETHER - 1, "bond-amount")]
)
def test_register__reject(scene: Scene, seat: int, value: int, rule: str) -> None:
    assert scene.refusal(OUTSIDER, "register", seat, bytes(32), value=value) == rule


def test_register__reject_a_second_seat_for_one_account(scene: Scene) -> None:
    assert scene.refusal(VALIDATORS[0], "register", 9, bytes(32), value=ETHER) == "registered-already"


def test_leave__bond_comes_back_after_the_delay_only(scene: Scene) -> None:
    scene.settle(0, TREE)
    leaver = VALIDATORS[3]
    scene.send(leaver, "leave")
    assert scene.refusal(leaver, "leave") == "left-already"
    assert scene.refusal(leaver, "withdraw") == "withdrawal-delay"
    scene.pass_time(TERMS.withdrawal_s)
    before = scene.balance(leaver.address)
    receipt = scene.send(leaver, "withdraw")
    cost = receipt["gasUsed"] * receipt["effectiveGasPrice"]
    assert scene.balance(leaver.address) - before + cost == ETHER
    assert scene.refusal(leaver, "withdraw") == "not-a-validator"


def test_leave__signs_until_its_bond_could_leave_too_early(scene: Scene) -> None:
    scene.settle(0, TREE)
    scene.send(VALIDATORS[0], "leave")
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(1, TREE)) == "accepted"
    scene.pass_time(TERMS.withdrawal_s - TERMS.dispute_s + 1)
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(1, TREE)) == "validator-leaving"


@pytest.mark.parametrize("function", ["leave", "withdraw"])
def test_outsider__has_no_seat_to_leave(scene: Scene, function: str) -> None:
    assert scene.refusal(OUTSIDER, function) == "not-a-validator"


def test_equivocation__slashes_and_voids_what_loses_its_quorum(scene: Scene) -> None:
    scene.settle(0, TREE)
    liar = VALIDATORS[0]
    before = scene.balance(FUNDER.address)
    receipt = scene.send(FUNDER, "prove_equivocation", *scene.equivocation(liar, 0, TREE, OTHER))
    cost = receipt["gasUsed"] * receipt["effectiveGasPrice"]
    assert scene.balance(FUNDER.address) - before + cost == ETHER // 10
    assert scene.contract.seat(liar.address) is None
    state = scene.contract.epoch_state(0)
    assert (state.is_settled, state.round) == (False, 1)
    assert scene.contract.treasury().pot_wei == POT + ETHER - ETHER // 10
    # Signatures of the voided round are worth nothing, and nobody honest contradicts itself by signing again.
    honest = VALIDATORS[1:]
    assert scene.refusal(OUTSIDER, "settle", *scene.settle_arguments(0, OTHER, honest)) == "not-a-validator"
    scene.settle(0, OTHER, honest, round_=1)
    assert scene.contract.epoch_state(0).root == OTHER.root


def test_equivocation__leaves_a_settlement_that_keeps_its_quorum(scene: Scene) -> None:
    scene.settle(0, TREE, VALIDATORS)
    scene.send(FUNDER, "prove_equivocation", *scene.equivocation(VALIDATORS[0], 0, TREE, OTHER))
    state = scene.contract.epoch_state(0)
    assert (state.root, state.signers) == (bytes(TREE.root), frozenset({1, 2, 3}))


def test_equivocation__slashes_after_the_window_but_voids_nothing(scene: Scene) -> None:
    settled(scene)
    scene.send(FUNDER, "prove_equivocation", *scene.equivocation(VALIDATORS[0], 0, TREE, OTHER))
    assert scene.contract.epoch_state(0).is_settled
    scene.claim(0, TREE, 0)


def test_equivocation__reject_what_is_none(scene: Scene) -> None:
    epoch, round_, *_ = proof = scene.equivocation(VALIDATORS[0], 0, TREE, OTHER)
    same = (epoch, round_, *proof[2:5], *proof[2:5])
    assert scene.refusal(OUTSIDER, "prove_equivocation", *same) == "same-settlement"
    two_signers = (*proof[:5], *scene.equivocation(VALIDATORS[1], 0, TREE, OTHER)[5:])
    assert scene.refusal(OUTSIDER, "prove_equivocation", *two_signers) == "two-signers"
    outsider = scene.equivocation(OUTSIDER, 0, TREE, OTHER)
    assert scene.refusal(OUTSIDER, "prove_equivocation", *outsider) == "not-a-validator"
    other_round = (epoch, 1, *proof[2:])
    assert scene.refusal(OUTSIDER, "prove_equivocation", *other_round) in {"two-signers", "not-a-validator"}


def test_equivocation__is_punished_once_even_if_the_liar_comes_back(scene: Scene) -> None:
    proof = scene.equivocation(VALIDATORS[0], 0, TREE, OTHER)
    scene.send(FUNDER, "prove_equivocation", *proof)
    scene.send(VALIDATORS[0], "register", 0, bytes(32), value=ETHER)
    assert scene.refusal(OUTSIDER, "prove_equivocation", *proof) == "proven-already"


def test_equivocation__reject_after_the_bond_is_gone(scene: Scene) -> None:
    scene.settle(0, TREE)
    scene.send(VALIDATORS[3], "leave")
    scene.pass_time(TERMS.withdrawal_s)
    scene.send(VALIDATORS[3], "withdraw")
    proof = scene.equivocation(VALIDATORS[3], 0, TREE, OTHER)
    assert scene.refusal(OUTSIDER, "prove_equivocation", *proof) == "not-a-validator"


def test_contract__refuses_money_without_a_word(scene: Scene) -> None:
    with pytest.raises(ContractLogicError):
        scene.w3.eth.call({"from": FUNDER.address, "to": scene.contract._address, "value": Wei(1)})


def test_gas__is_within_reach(scene: Scene) -> None:
    tree = tree_of(1000)
    receipt = scene.settle(0, tree)
    assert receipt["gasUsed"] <= 100_000
    scene.pass_time(TERMS.dispute_s)
    used = [scene.claim(0, tree, index)["gasUsed"] for index in (256, 257, 258, 511)]
    # The first claim of each 256 writes a new word, and a payee nobody has used costs 25,000 more.
    assert used[0] <= 102_000
    assert max(used[1:]) <= 90_000
    assert NUM_VALIDATORS == 4
