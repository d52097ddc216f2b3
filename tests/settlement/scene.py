"""A deployed contract with validators and a pot, and short words for what happens to it."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from hexbytes import HexBytes
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractLogicError
from web3.providers import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse, Wei

from iota_p2p.settlement.account import sign_typed
from iota_p2p.settlement.artifact import load_artifact
from iota_p2p.settlement.contract_client import SettlementContract
from iota_p2p.settlement.contract_state import Terms
from iota_p2p.settlement.dev_chain import DevChain, dev_accounts
from iota_p2p.settlement.rpc import refusal_of
from iota_p2p_protocols.settlement.payout_tree import PayoutTree
from iota_p2p_protocols.settlement.typed_data import Settlement, settlement_typed_data

RUN_ID = bytes(range(32))
ETHER = 10**18
POT = 10 * ETHER
TERMS = Terms(RUN_ID, bond_wei=ETHER, min_seats=3, dispute_s=100, withdrawal_s=300)
NUM_VALIDATORS = 4
ACCOUNTS: list[LocalAccount] = [Account.from_key(account.key) for account in dev_accounts()]
FUNDER, VALIDATORS, OUTSIDER = ACCOUNTS[0], ACCOUNTS[1 : 1 + NUM_VALIDATORS], ACCOUNTS[15]


def payee(index: int) -> bytes:
    """An account that nobody has used."""
    return hashlib.sha256(b"payee %d" % index).digest()[:20]


def tree_of(count: int, amount: int = ETHER // 1000) -> PayoutTree:
    return PayoutTree([(payee(index), amount + index) for index in range(count)])


def rpc(w3: Web3, method: str, *params: Any) -> Any:
    answer = w3.provider.make_request(RPCEndpoint(method), list(params))
    assert "error" not in answer, answer
    return answer["result"]


def connect_to(url: str) -> Web3:
    return Web3(HTTPProvider(url))


class DirectProvider(JSONBaseProvider):
    """The local chain without a network between: the same bytes, a few times as fast."""

    def __init__(self, chain: DevChain) -> None:
        super().__init__()
        self._respond = chain.respond
        self._chain_id: RPCResponse | None = None

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        if method == "eth_chainId" and self._chain_id is not None:
            return self._chain_id  # asked before every call
        response = self.decode_rpc_response(self._respond(self.encode_rpc_request(method, params)))
        self._chain_id = response if method == "eth_chainId" else self._chain_id
        return response


@dataclass
class Scene:
    """One contract on a chain, with short words."""

    w3: Web3
    contract: SettlementContract
    nonces: dict[str, int] = field(default_factory=dict)

    def send(self, account: LocalAccount, function: str, *arguments: Any, value: int = 0) -> Any:
        """Send a call that is to succeed; return its receipt."""
        contract = self.w3.eth.contract(address=self.contract._address, abi=load_artifact().abi)
        data = contract.encode_abi(function, args=list(arguments))
        return send_raw(self.w3, account, self.contract.address, data, value)

    def refusal(self, account: LocalAccount, function: str, *arguments: Any, value: int = 0) -> str:
        """Return the rule by which the contract refuses a call, or "accepted"."""
        contract = self.w3.eth.contract(address=self.contract._address, abi=load_artifact().abi)
        try:
            contract.functions[function](*arguments).call({"from": account.address, "value": Wei(value)})
        except ContractLogicError as error:
            return refusal_of(error).rule
        return "accepted"

    def settlement(self, epoch: int, tree: PayoutTree, round_: int = 0) -> Settlement:
        return Settlement(RUN_ID, epoch, round_, bytes(tree.root), tree.total_wei)

    def sign(self, account: LocalAccount, settlement: Settlement) -> tuple[bytes, bytes]:
        signature = sign_typed(account, settlement_typed_data(self.contract.signing_address(), settlement))
        return signature[:32], signature[32:]

    def settle_arguments(
        self, epoch: int, tree: PayoutTree, signers: list[LocalAccount] | None = None, round_: int = 0
    ) -> tuple[Any, ...]:
        """The arguments of settle, signed by three validators unless told otherwise."""
        settlement = self.settlement(epoch, tree, round_)
        signatures = [self.sign(signer, settlement) for signer in (VALIDATORS[:3] if signers is None else signers)]
        return (epoch, settlement.root, settlement.total_wei, self.contract.checkpoint_for(epoch), signatures)

    def settle(self, epoch: int, tree: PayoutTree, signers: list[LocalAccount] | None = None, round_: int = 0) -> Any:
        return self.send(OUTSIDER, "settle", *self.settle_arguments(epoch, tree, signers, round_))

    def claim_arguments(self, epoch: int, tree: PayoutTree, index: int) -> tuple[Any, ...]:
        payout = tree.payouts[index]
        account = self.w3.to_checksum_address(payout.account)
        return epoch, index, account, payout.amount_wei, list(tree.proof(index))

    def claim(self, epoch: int, tree: PayoutTree, index: int) -> Any:
        return self.send(OUTSIDER, "claim", *self.claim_arguments(epoch, tree, index))

    def equivocation(
        self, liar: LocalAccount, epoch: int, first: PayoutTree, second: PayoutTree, round_: int = 0
    ) -> tuple[Any, ...]:
        """The arguments of prove_equivocation, for a validator that signed two trees."""
        one, two = self.settlement(epoch, first, round_), self.settlement(epoch, second, round_)
        signed = [(each.root, each.total_wei, self.sign(liar, each)) for each in (one, two)]
        return epoch, round_, *signed[0], *signed[1]

    def pass_time(self, seconds: int) -> None:
        rpc(self.w3, "evm_increaseTime", seconds)
        rpc(self.w3, "evm_mine")

    def balance(self, account: bytes | str) -> int:
        return self.w3.eth.get_balance(self.w3.to_checksum_address(account))


def send_raw(w3: Web3, account: LocalAccount, to: str | None, data: Any, value: int = 0) -> Any:
    fields: dict[str, Any] = {
        "chainId": w3.eth.chain_id,
        "nonce": w3.eth.get_transaction_count(account.address),
        "gas": 4_000_000 if to is None else 600_000,
        "maxFeePerGas": 20 * 10**9,
        "maxPriorityFeePerGas": 10**9,
        "type": 2,
        "value": value,
        "data": data,
    }
    if to is not None:
        fields["to"] = to
    hash_ = w3.eth.send_raw_transaction(account.sign_transaction(fields).raw_transaction)
    receipt = w3.eth.wait_for_transaction_receipt(hash_, timeout=30)
    assert receipt["status"] == 1, f"refused when mined: {data[:10]}"
    return receipt


def deploy_scene(w3: Web3, terms: Terms = TERMS, pot: int = POT, num_validators: int = NUM_VALIDATORS) -> Scene:
    artifact = load_artifact()
    factory = w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    values = (terms.run_id, terms.bond_wei, terms.min_seats, terms.dispute_s, terms.withdrawal_s)
    receipt = send_raw(w3, FUNDER, None, HexBytes(factory.constructor(*values).data_in_transaction))
    scene = Scene(w3, SettlementContract(w3, receipt["contractAddress"]))
    for seat in range(num_validators):
        scene.send(ACCOUNTS[1 + seat], "register", seat, bytes([seat]) * 32, value=terms.bond_wei)
    scene.send(FUNDER, "fund", value=pot)
    return scene
