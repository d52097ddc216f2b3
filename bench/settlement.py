"""What settling costs: gas of every call, and the time of an epoch of 1,000 peers on the local EVM.

Gas is exact and the same everywhere. Times are this machine's; beside them stands the same work's processor time.
`.venv/bin/python bench/settlement.py [--json FILE]`
"""

import argparse
import hashlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hexbytes import HexBytes
from web3 import Web3

from iota_p2p.settlement.account import sign_typed
from iota_p2p.settlement.artifact import load_artifact
from iota_p2p.settlement.contract_client import SettlementContract
from iota_p2p.settlement.contract_state import Terms
from iota_p2p.settlement.dev_chain import DevChainServer, dev_accounts
from iota_p2p.settlement.rpc import connect
from iota_p2p_protocols.settlement.payout_tree import PayoutTree
from iota_p2p_protocols.settlement.typed_data import Settlement, settlement_typed_data

PEERS = 1000
ETHER = 10**18
DISPUTE_S = 10
RUN_ID = bytes(32)
REACH = {"settle, 3 signatures": 100_000, "claim, 1,000 leaves, account in use": 90_000}


class Sender:
    """Sends signed transactions and keeps what they cost."""

    def __init__(self, w3: Web3) -> None:
        from eth_account import Account  # noqa: PLC0415 - beside its only use

        self._w3 = w3
        self.accounts = [Account.from_key(account.key) for account in dev_accounts()]
        self.contract = w3.eth.contract(abi=load_artifact().abi, bytecode=load_artifact().bytecode)

    def send(self, account: Any, data: Any, to: str | None = None, value: int = 0) -> Any:
        """Send a transaction and return its receipt."""
        fields = {"type": 2, "chainId": self._w3.eth.chain_id, "gas": 4_000_000, "value": value, "data": data}
        fields |= {"maxFeePerGas": 20 * 10**9, "maxPriorityFeePerGas": 10**9} | ({"to": to} if to else {})
        fields["nonce"] = self._w3.eth.get_transaction_count(account.address)
        receipt = self._w3.eth.wait_for_transaction_receipt(
            self._w3.eth.send_raw_transaction(account.sign_transaction(fields).raw_transaction)
        )
        if receipt["status"] != 1:
            raise SystemExit("a call was refused")
        return receipt

    def call(self, account: Any, to: str, function: str, *arguments: Any, value: int = 0) -> int:
        """Call the contract and return the gas used."""
        data = HexBytes(self.contract.encode_abi(function, args=list(arguments)))
        return int(self.send(account, data, to, value)["gasUsed"])


def measure(url: str) -> dict[str, Any]:
    """Return gas by call, and the times of an epoch."""
    w3 = connect(url)
    sender = Sender(w3)
    funder, *validators = sender.accounts[:5]
    terms = Terms(RUN_ID, ETHER, 3, DISPUTE_S, 10 * DISPUTE_S)
    values = (terms.run_id, terms.bond_wei, terms.min_seats, terms.dispute_s, terms.withdrawal_s)
    receipt = sender.send(funder, HexBytes(sender.contract.constructor(*values).data_in_transaction))
    contract = SettlementContract(w3, receipt["contractAddress"])
    gas = {"deploy": int(receipt["gasUsed"])}
    for seat, validator in enumerate(validators):
        used = sender.call(validator, contract.address, "register", seat, bytes([seat]) * 32, value=ETHER)
        gas["register, the first" if seat == 0 else "register"] = used
    gas["fund"] = sender.call(funder, contract.address, "fund", value=10 * ETHER)

    accounts = [hashlib.sha256(b"%d" % index).digest()[:20] for index in range(PEERS)]
    # An account in use, as that of everybody who pays for gas.
    accounts[1] = accounts[300] = accounts[301] = bytes.fromhex(funder.address[2:])
    shares = [(account, 10**14) for account in accounts]
    start, start_cpu = time.perf_counter(), time.process_time()
    tree = PayoutTree(shares)
    tree_s = time.perf_counter() - start
    settlement = Settlement(RUN_ID, 0, 0, bytes(tree.root), tree.total_wei)
    typed_data = settlement_typed_data(contract.signing_address(), settlement)
    pairs = [(one[:32], one[32:]) for one in (sign_typed(validator, typed_data) for validator in validators[:3])]
    arguments = (0, settlement.root, settlement.total_wei, 0, pairs)
    gas["settle, 3 signatures"] = sender.call(funder, contract.address, "settle", *arguments)
    epoch_s, epoch_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu

    w3.provider.make_request("evm_increaseTime", [DISPUTE_S])  # type: ignore[arg-type]  # a test chain's own method
    for name, index in (
        ("claim, 1,000 leaves, first of 256, new account", 0),
        ("claim, 1,000 leaves, account in use", 1),
        ("claim, 1,000 leaves, new account", 2),
        ("claim, 1,000 leaves, first of 256, account in use", 300),
    ):
        payout = tree.payouts[index]
        leaf = (0, index, w3.to_checksum_address(payout.account), payout.amount_wei, list(tree.proof(index)))
        gas[name] = sender.call(funder, contract.address, "claim", *leaf)
    lie = Settlement(RUN_ID, 1, 0, bytes(range(32)), 1), Settlement(RUN_ID, 1, 0, bytes(range(32)), 2)
    signed = [sign_typed(validators[3], settlement_typed_data(contract.signing_address(), one)) for one in lie]
    # The latest seats count from epoch 0; whoever lies about epoch 1 is in its term.
    proof = [(one.root, one.total_wei, (each[:32], each[32:])) for one, each in zip(lie, signed, strict=True)]
    gas["prove equivocation"] = sender.call(funder, contract.address, "prove_equivocation", 1, 0, *proof[0], *proof[1])
    gas["leave"] = sender.call(validators[0], contract.address, "leave")
    return {
        "gas": gas,
        "reach": {name: gas[name] <= limit for name, limit in REACH.items()},
        "peers": PEERS,
        "tree_s": round(tree_s, 4),
        "epoch_settled_s": round(epoch_s, 3),
        "epoch_settled_cpu_s": round(epoch_cpu_s, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args()
    with DevChainServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            found = measure(server.url)
        finally:
            server.shutdown()
            thread.join()
    for name, used in found["gas"].items():
        limit = f"  (reach {REACH[name]:,})" if name in REACH else ""
        print(f"{name:<52}{used:>10,} gas{limit}")
    print(
        f"an epoch of {PEERS:,} peers: tree {found['tree_s'] * 1000:.1f} ms, built, signed and settled in "
        f"{found['epoch_settled_s']:.2f} s ({found['epoch_settled_cpu_s']:.2f} s of processor; reach 2 s)"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(not all(found["reach"].values()))


if __name__ == "__main__":
    main()
