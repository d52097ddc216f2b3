"""Payout trees, bindings and votes as pure values; no chain."""

from pathlib import Path

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.settlement.account import create_account, load_account, recover_typed, sign_typed
from iota_p2p.settlement.bittensor_export import weight_vector
from iota_p2p.settlement.voting import seal_binding, seal_vote
from iota_p2p_crypto.errors import LocalProtocolError, UserError
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_to_bytes
from iota_p2p_crypto.merkle import verify_inclusion
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.settlement.payout_binding import accounts_of, open_binding
from iota_p2p_protocols.settlement.payout_tree import WEI_PER_UNIT, PayoutTree, payout_tree
from iota_p2p_protocols.settlement.settlement_vote import SettlementVote, signatures_for
from iota_p2p_protocols.settlement.typed_data import ContractAddress, Settlement, settlement_typed_data

RUN = bytes(range(32))
NOW_S = 1_700_000_000
PEERS = sorted(
    (Identity.from_seed(bytes([index]) * 32) for index in range(5)), key=lambda one: peer_id_to_bytes(one.peer_id)
)
WALLETS = [Account.from_key(bytes([index + 1]) * 32) for index in range(5)]
CHAIN = ContractAddress(31337, bytes(range(20)))
ACCOUNT = st.binary(min_size=20, max_size=20)


def address_of(wallet: LocalAccount) -> bytes:
    return bytes.fromhex(wallet.address[2:])


def result_of(scores: list[tuple[int, int]], issued_s: int = NOW_S) -> EpochResult:
    return EpochResult(
        run_id=RUN,
        sequence=1,
        issued_s=issued_s,
        expires_s=issued_s + 60,
        epoch=0,
        seed=bytes(32),
        records=(bytes(32),),
        pot=sum(share for _, share in scores),
        payouts=tuple((peer.peer_id, *row) for peer, row in zip(PEERS, scores, strict=False)),
    )


@given(st.lists(st.tuples(ACCOUNT, st.integers(1, 2**90)), min_size=1, max_size=40))
def test_payout_tree__every_leaf_has_its_proof(shares: list[tuple[bytes, int]]) -> None:
    tree = PayoutTree(shares)
    padded = 1 << (len(shares) - 1).bit_length()
    for payout in tree.payouts:
        proof = tree.proof(payout.index)
        verify_inclusion(root=tree.root, size=padded, index=payout.index, data=payout.leaf(), proof=proof)
    assert tree.total_wei == sum(amount for _, amount in shares)


@pytest.mark.parametrize("share", [(b"short", 1), (bytes(20), 0), (bytes(20), 2**112)])
def test_payout_tree__reject_what_the_contract_cannot_pay(share: tuple[bytes, int]) -> None:
    with pytest.raises(LocalProtocolError):
        PayoutTree([share])


def test_payout_tree__leaves_out_who_has_no_account_or_no_share() -> None:
    accounts = {peer.peer_id: address_of(wallet) for peer, wallet in zip(PEERS, WALLETS, strict=True)}
    del accounts[PEERS[1].peer_id]
    tree = payout_tree(result_of([(9, 50), (9, 30), (1, 0), (4, 20)]), accounts)
    assert [(one.account, one.amount_wei) for one in tree.payouts] == [
        (address_of(WALLETS[0]), 50 * WEI_PER_UNIT),
        (address_of(WALLETS[3]), 20 * WEI_PER_UNIT),
    ]


def test_bindings__the_latest_that_was_issued_in_time_counts() -> None:
    old, new, late = (
        open_binding(seal_binding(PEERS[0], WALLETS[index], RUN, NOW_S + 100 * index, index), recover_typed)
        for index in range(3)
    )
    for order in ([old, new, late], [late, new, old]):
        assert accounts_of(order, issued_by_s=NOW_S + 150) == {PEERS[0].peer_id: address_of(WALLETS[1])}
    assert accounts_of([new], issued_by_s=NOW_S) == {}


def test_votes__count_once_per_seat_and_only_for_what_they_are_for() -> None:
    settlement = Settlement(RUN, 3, 0, bytes(32), 10**18)
    other = Settlement(RUN, 3, 1, bytes(32), 10**18)
    votes = [
        open_signed(seal_vote(peer, wallet, CHAIN, what, NOW_S), SettlementVote)
        for peer, wallet, what in [
            (PEERS[2], WALLETS[2], settlement),
            (PEERS[0], WALLETS[0], settlement),
            (PEERS[1], WALLETS[0], settlement),
            (PEERS[1], WALLETS[1], other),
            (PEERS[4], WALLETS[4], settlement),
        ]
    ]
    seats = {address_of(wallet): 7 - index for index, wallet in enumerate(WALLETS[:4])}
    signatures = signatures_for(CHAIN, settlement, votes, recover_typed, seats)
    typed_data = settlement_typed_data(CHAIN, settlement)
    signers = [recover_typed(typed_data, signature) for signature in signatures]
    assert signers == [address_of(WALLETS[2]), address_of(WALLETS[0])], "by seat; outsiders and other rounds left out"
    assert signatures[1] == sign_typed(WALLETS[0], typed_data), "deterministic"


def test_weight_vector__scales_to_u16_and_drops_zeros() -> None:
    result = result_of([(1_000_000, 1), (500_000, 1), (7, 1), (8, 1)])
    weights = {one.peer_id: one.weight for one in weight_vector(result, {})}
    assert weights == {PEERS[0].peer_id: 65535, PEERS[1].peer_id: 32768, PEERS[3].peer_id: 1}
    assert weight_vector(result_of([]), {PeerId(PEERS[0].peer_id): 1}) == []


def test_account_file__is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "account.key"
    made = create_account(path)
    assert load_account(path).address == made.address
    with pytest.raises(UserError, match="not overwritten"):
        create_account(path)
    path.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        load_account(path)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(UserError, match="64 hex digits"):
        load_account(path)
