"""`SettlementContract`: the deployed contract as values of ours, read and called through nothing but an RPC."""

from collections.abc import Sequence
from typing import Any

from eth_typing import BlockNumber, ChecksumAddress
from eth_utils.address import to_canonical_address, to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.exceptions import BadFunctionCallOutput, ContractLogicError, Web3RPCError

from iota_p2p.settlement.artifact import load_artifact
from iota_p2p.settlement.contract_state import (
    ClaimedEvent,
    EpochState,
    Seat,
    SettledEvent,
    Terms,
    Treasury,
)
from iota_p2p.settlement.errors import ChainError, RpcUnavailableError
from iota_p2p.settlement.rpc import OUTAGES, chain_id_of, refusal_of
from iota_p2p.settlement.submitter import Call, Outcome, Submitter
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import PeerId, public_key_of
from iota_p2p_protocols.settlement.payout_tree import PayoutTree
from iota_p2p_protocols.settlement.typed_data import ContractAddress, Settlement

_MAX_SEATS = 64  # the contract's


class SettlementContract:
    """One deployed contract; reading needs no account, calling takes a `Submitter`."""

    def __init__(self, w3: Web3, address: str) -> None:
        self._w3 = w3
        self._address: ChecksumAddress = to_checksum_address(address)
        self._contract = w3.eth.contract(address=self._address, abi=load_artifact().abi)

    @property
    def address(self) -> str:
        """Where it is, with checksum."""
        return self._address

    def signing_address(self) -> ContractAddress:
        """Return what signatures for it are bound to."""
        return ContractAddress(chain_id_of(self._w3), to_canonical_address(self._address))

    def terms(self) -> Terms:
        """Return what it was created with."""
        return Terms(
            bytes(self._read("RUN")),
            self._read("BOND"),
            self._read("MIN_SEATS"),
            self._read("DISPUTE_S"),
            self._read("WITHDRAWAL_S"),
        )

    def treasury(self) -> Treasury:
        """Return the pot and the seats."""
        return Treasury(*self._read("treasury"))

    def seat(self, account: str, block: int | None = None) -> Seat | None:
        """Return an account's seat, as of a block or now."""
        held, *fields = self._read("validator", to_checksum_address(account), block=block)
        return Seat(*fields) if held else None

    def free_seat(self) -> int:
        """Return the first free seat; somebody else may take it before us.

        Raises:
            UserError: if all are taken.
        """
        for index, holder in enumerate(self._read("holders")):
            if not int(holder, 16):
                return index
        raise UserError(f"all {_MAX_SEATS} seats are taken: wait until somebody leaves")

    def seats(self, epoch: int) -> dict[bytes, int]:
        """Return which account holds which seat in an epoch, of those that may still sign."""
        found: dict[bytes, int] = {}
        for index, holder in enumerate(self._read("holders")):
            seat = self.seat(holder) if int(holder, 16) else None
            if seat is not None and seat.since <= epoch < seat.until:
                found[to_canonical_address(holder)] = index
        return found

    def epoch_state(self, epoch: int, block: int | None = None) -> EpochState:
        """Return what it holds of an epoch, as of a block or now."""
        root, remaining, deadline, round_, bitmap = self._read("epoch_state", epoch, block=block)
        signers = frozenset(index for index in range(_MAX_SEATS) if bitmap >> index & 1)
        return EpochState(bytes(root), remaining, deadline, round_, signers)

    def is_claimed(self, epoch: int, index: int, block: int | None = None) -> bool:
        """Return whether a leaf has been paid, as of a block or now."""
        return bool(self._read("is_claimed", epoch, index, block=block))

    def checkpoint_for(self, epoch: int) -> int:
        """Return which checkpoint holds an epoch; 0, which nobody looks at, for those since the last change."""
        if epoch < self.treasury().seats_since:
            for index in reversed(range(self._read("num_checkpoints"))):
                word = self._read("checkpoints", index)
                if word & (2**48 - 1) <= epoch < word >> 48 & (2**48 - 1):
                    return int(index)
        return 0

    def quorum(self, epoch: int) -> int:
        """Return how many signatures a settlement of an epoch needs."""
        treasury = self.treasury()
        seats = treasury.seats
        if epoch < treasury.seats_since:
            seats = self._read("checkpoints", self.checkpoint_for(epoch)) >> 96
        return 2 * seats // 3 + 1

    def balance_wei(self) -> int:
        """Return what it holds in all: pot, bonds and what is not claimed."""
        return int(self._w3.eth.get_balance(self._address))

    def is_genuine(self) -> bool:
        """Return whether the code on the chain is this contract's, and no other that answers alike."""
        return bytes(self._w3.eth.get_code(self._address)).startswith(load_artifact().runtime)

    def num_seats_held(self) -> int:
        """Return how many bonds it holds: those who left and did not withdraw yet still have theirs in it."""
        return sum(int(holder, 16) != 0 for holder in self._read("holders"))

    def settled_events(self) -> list[SettledEvent]:
        """Return every settlement it logged, in order; a voided one stays in the log."""
        logs = self._logs("Settled")
        return [SettledEvent(*(log[name] for name in ("epoch", "root", "total", "round"))) for log in logs]

    def claimed_events(self) -> list[ClaimedEvent]:
        """Return every claim it logged, in order."""
        return [
            ClaimedEvent(log["epoch"], log["index"], to_canonical_address(log["account"]), log["amount"])
            for log in self._logs("Claimed")
        ]

    def fund(self, submitter: Submitter, amount_wei: int, purpose: str) -> Outcome:
        """Pay into the pot, once for each purpose."""
        return submitter.submit(self._call(f"fund/{purpose}", "fund", value_wei=amount_wei))

    def register(self, submitter: Submitter, account: str, peer_id: PeerId, seat: int) -> Outcome:
        """Take a seat for an account, which must be the submitter's."""
        bond = submitter.ask(self.terms).bond_wei
        next_epoch = submitter.ask(self.treasury).next_epoch  # whoever left may register again, later
        purpose = f"register/{seat}/{next_epoch}"
        call = self._call(purpose, "register", seat, public_key_of(peer_id), value_wei=bond)
        return submitter.submit(call, lambda block: self.seat(account, block) is not None)

    def settle(self, submitter: Submitter, settlement: Settlement, signatures: Sequence[bytes]) -> Outcome:
        """Settle an epoch; if somebody else has settled it alike, that is noticed and fine.

        Raises:
            ContractRefusalError: if the contract refuses it, for instance because it holds another root.
        """
        pairs = [(signature[:32], signature[32:]) for signature in signatures]
        epoch = settlement.epoch
        checkpoint = submitter.ask(lambda: self.checkpoint_for(epoch))
        purpose = f"settle/{epoch}/{settlement.round}/{settlement.root.hex()}"
        call = self._call(purpose, "settle", epoch, settlement.root, settlement.total_wei, checkpoint, pairs)
        return submitter.submit(call, lambda block: self.epoch_state(epoch, block).root == settlement.root)

    def claim(self, submitter: Submitter, epoch: int, tree: PayoutTree, index: int) -> Outcome:
        """Claim a leaf for the account it names; if it has been claimed, that is noticed and fine."""
        payout = tree.payouts[index]
        account = to_checksum_address(payout.account)
        arguments = (epoch, index, account, payout.amount_wei, list(tree.proof(index)))
        call = self._call(f"claim/{epoch}/{index}", "claim", *arguments)
        return submitter.submit(call, lambda block: self.is_claimed(epoch, index, block))

    def prove_equivocation(
        self, submitter: Submitter, first: Settlement, signature_a: bytes, second: Settlement, signature_b: bytes
    ) -> Outcome:
        """Have a validator slashed that signed both settlements, of one epoch and round."""
        call = self._call(
            f"equivocation/{first.epoch}/{signature_a.hex()}",
            "prove_equivocation",
            first.epoch,
            first.round,
            first.root,
            first.total_wei,
            (signature_a[:32], signature_a[32:]),
            second.root,
            second.total_wei,
            (signature_b[:32], signature_b[32:]),
        )
        return submitter.submit(call)

    def leave(self, submitter: Submitter, account: str) -> Outcome:
        """Give up an account's seat, from the epoch after the next one."""

        def has_left(block: int | None) -> bool:
            seat = self.seat(account, block)
            return seat is None or seat.withdraw_at_s != 0

        seat = submitter.ask(lambda: self.seat(account))
        return submitter.submit(self._call(f"leave/{None if seat is None else seat.since}", "leave"), has_left)

    def withdraw(self, submitter: Submitter, account: str) -> Outcome:
        """Take an account's bond back."""
        seat = submitter.ask(lambda: self.seat(account))
        call = self._call(f"withdraw/{None if seat is None else seat.since}", "withdraw")
        return submitter.submit(call, lambda block: self.seat(account, block) is None)

    def _call(self, purpose: str, function: str, *arguments: Any, value_wei: int = 0) -> Call:
        data = HexBytes(self._contract.encode_abi(function, args=list(arguments)))
        return Call(f"{self._address}/{purpose}", self._address, bytes(data), value_wei)

    def _logs(self, event: str) -> list[Any]:
        try:
            logs = self._contract.events[event]().get_logs(from_block=0)
        except OUTAGES as error:
            raise RpcUnavailableError(f"the RPC does not answer: {error}") from error
        except Web3RPCError as error:
            raise ChainError(f"the RPC refuses to list {event}: {error}") from error
        return [log["args"] for log in logs]

    def _read(self, function: str, *arguments: Any, block: int | None = None) -> Any:
        try:
            return self._contract.functions[function](*arguments).call(
                block_identifier="latest" if block is None else BlockNumber(block)
            )
        except OUTAGES as error:
            raise RpcUnavailableError(f"the RPC does not answer: {error}") from error
        except ContractLogicError as error:
            raise refusal_of(error) from error
        except BadFunctionCallOutput as error:
            raise UserError(
                f"there is no settlement contract at {self._address}: check --contract and --rpc"
            ) from error
        except Web3RPCError as error:
            raise ChainError(f"the RPC refuses to read {function}: {error}") from error


def deploy(w3: Web3, submitter: Submitter, terms: Terms, purpose: str) -> SettlementContract:
    """Create a contract, once for each purpose, and return it."""
    artifact = load_artifact()
    factory = w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    arguments = (terms.run_id, terms.bond_wei, terms.min_seats, terms.dispute_s, terms.withdrawal_s)
    data = HexBytes(factory.constructor(*arguments).data_in_transaction)
    outcome = submitter.submit(Call(f"deploy/{purpose}", None, bytes(data)))
    address = None if outcome.receipt is None else outcome.receipt["contractAddress"]
    if address is None:
        raise ChainError("the RPC names no contract in the receipt of its creation")
    return SettlementContract(w3, address)
