"""`Submitter`: gets a call into the chain once, whatever dies, lags or is reorganised on the way.

A purpose is done when a transaction of ours for it is mined deep enough, or when the chain's state says so, whoever did
it. Until then it has at most one nonce at a time: its transaction is journaled, sent, sent again after a death or a
reorganisation, and replaced under the same nonce by a better paid one when nobody mines it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from eth_account.signers.local import LocalAccount
from hexbytes import HexBytes
from web3 import Web3
from web3.exceptions import ContractLogicError, TransactionNotFound, Web3RPCError
from web3.types import TxParams, TxReceipt

from iota_p2p.settlement.errors import ChainError, ContractRefusalError, RpcUnavailableError
from iota_p2p.settlement.journal import Attempt, Journal
from iota_p2p.settlement.rpc import OUTAGES, is_too_poor, refusal_of
from iota_p2p_crypto.errors import UserError

R = TypeVar("R")

# Asks the chain whether something has happened, as of a block or now.
IsDone: TypeAlias = Callable[[int | None], bool]

_REPLACE_EVERY = 30  # polls without being mined before the fee is raised: half a minute, two or three blocks of mainnet
_MAX_FEE = 500 * 10**9  # wei per gas; above it we wait for calmer times
_TIP = 10**9  # wei per gas for whoever mines it
_MAX_GAS = 5_000_000  # a deployment takes 2.2 million, a settlement with 64 signatures 0.7 million


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a chain.

    Attributes:
        poll_s: between two looks.
        polls: looks before giving up; what is pending stays pending and goes on with the next call.
        confirmations: blocks on top of a transaction's own before it counts.
        sleep: how to wait.
    """

    poll_s: float = 1.0
    polls: int = 300
    confirmations: int = 0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Call:
    """What is to happen on the chain.

    Attributes:
        purpose: its name in the journal: the same call again must have the same, another call another.
        to: the contract, as a checksummed address; None deploys one.
        data: selector and arguments, or the contract's code.
        value_wei: what is paid along.
    """

    purpose: str
    to: str | None
    data: bytes
    value_wei: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended well.

    Attributes:
        by_us: whether a transaction of ours did it; otherwise somebody was faster.
        receipt: of our transaction.
    """

    by_us: bool
    receipt: TxReceipt | None = None


class Submitter:
    """Sends one account's calls."""

    def __init__(self, w3: Web3, account: LocalAccount, journal: Journal, patience: Patience) -> None:
        self._w3 = w3
        self._account = account
        self._journal = journal
        self._patience = patience

    def submit(self, call: Call, is_done: IsDone | None = None) -> Outcome:
        """Make a call happen exactly once.

        Args:
            call: what.
            is_done: whether it has happened, whoever did it; None if only our own doing counts (others pay in, too).

        Raises:
            ContractRefusalError: if the contract refuses it.
            UserError: if the account cannot pay for it.
            ChainError: if the chain does not answer or mine in time; call again later.
        """
        self._send_pending()
        # Reverted for good before this call: spent nonces that did nothing. What reverts from here on is reported.
        spent = {attempt.hash for attempt in self._journal.attempts(call.purpose) if self._reverted(attempt)}
        for poll in range(self._patience.polls):
            attempts = [one for one in self._journal.attempts(call.purpose) if one.hash not in spent]
            receipt = self._receipt_of(attempts)
            if receipt is not None and self._is_deep(receipt):
                if receipt["status"] == 1:
                    return Outcome(by_us=True, receipt=receipt)
                return self._explain_revert(call, is_done)
            if receipt is None:
                if self._is_done(is_done, deep=True):
                    return Outcome(by_us=False)
                if self._is_done(is_done):
                    pass  # somebody was faster, but the chain may still change its mind
                elif not attempts or self._is_superseded(attempts):
                    self._send_first(call, is_done)
                    continue
                else:
                    self._send_again(call, attempts, replace=poll % _REPLACE_EVERY == _REPLACE_EVERY - 1)
            self._patience.sleep(self._patience.poll_s)
        raise ChainError(f"{call.purpose} is sent but not mined after {self._patience.polls} looks: try again later")

    def ask(self, question: Callable[[], R]) -> R:
        """Ask the chain something, through outages."""
        return self._ask(question)

    def _is_done(self, is_done: IsDone | None, *, deep: bool = False) -> bool:
        """Whether it has happened, now or below as many blocks as we want to see on top of it."""
        if is_done is None:
            return False
        if not deep or not self._patience.confirmations:
            return self._ask(partial(is_done, None))
        depth = self._ask(lambda: self._w3.eth.block_number) - self._patience.confirmations
        return depth >= 0 and self._ask(partial(is_done, depth))

    def _send_first(self, call: Call, is_done: IsDone | None) -> None:
        """Sign, journal and send a first transaction, unless it turns out to be done already."""
        try:
            gas = self._gas_for(call)
        except ContractRefusalError:
            if self._is_done(is_done):  # somebody was faster by a moment
                return
            raise
        next_nonce = self._ask(lambda: self._w3.eth.get_transaction_count(self._account.address))
        max_fee = self._fee()
        chain_id = self._ask(lambda: self._w3.eth.chain_id)
        self._send(self._journal.add_first(next_nonce, lambda nonce: self._sign(call, nonce, gas, max_fee, chain_id)))

    def _send_again(self, call: Call, attempts: list[Attempt], *, replace: bool) -> None:
        last = attempts[-1]
        max_fee = max(last.max_fee * 9 // 8 + 1, self._fee())  # nodes ask a tenth more of a replacement
        if replace and max_fee <= _MAX_FEE:
            gas = self._gas_for(call)
            chain_id = self._ask(lambda: self._w3.eth.chain_id)
            last = self._sign(call, last.nonce, gas, max_fee, chain_id)
            self._journal.add_replacement(last)
        self._send(last)

    def _send_pending(self) -> None:
        """Send whatever was journaled and is not mined, by nonce: a gap would hold up everything after it."""
        next_nonce = self._ask(lambda: self._w3.eth.get_transaction_count(self._account.address))
        latest = {attempt.nonce: attempt for attempt in self._journal.attempts() if attempt.nonce >= next_nonce}
        for nonce in sorted(latest):
            self._send(latest[nonce])

    def _send(self, attempt: Attempt) -> None:
        """Send a journaled transaction, perhaps not for the first time.

        What a node says of one it knows, has mined or will not take differs from node to node; receipts decide.
        """
        try:
            self._ask(lambda: self._w3.eth.send_raw_transaction(HexBytes(attempt.raw)))
        except (Web3RPCError, ContractLogicError) as error:
            if is_too_poor(error):
                raise UserError(f"the account {self._account.address} cannot pay for {attempt.purpose}") from error

    def _sign(self, call: Call, nonce: int, gas: int, max_fee: int, chain_id: int) -> Attempt:
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": max_fee,
            "maxPriorityFeePerGas": min(_TIP, max_fee),
            "value": call.value_wei,
            "data": call.data,
        }
        if call.to is not None:
            fields["to"] = call.to
        signed = self._account.sign_transaction(fields)
        return Attempt(call.purpose, nonce, max_fee, bytes(signed.hash), bytes(signed.raw_transaction))

    def _gas_for(self, call: Call) -> int:
        """Return a quarter more gas than the call takes now.

        Raises:
            ContractRefusalError: if it would be refused.
        """
        fields: TxParams = {"from": self._account.address, "data": HexBytes(call.data)}
        fields["value"] = cast("Any", call.value_wei)
        if call.to is not None:
            fields["to"] = call.to
        try:
            return min(self._ask(lambda: self._w3.eth.estimate_gas(fields)) * 5 // 4, _MAX_GAS)
        except ContractLogicError as error:
            raise refusal_of(error) from error
        except Web3RPCError as error:
            if is_too_poor(error):
                raise UserError(f"the account {self._account.address} cannot pay for {call.purpose}") from error
            raise ChainError(f"the RPC refuses to estimate {call.purpose}: {error}") from error

    def _fee(self) -> int:
        block = self._ask(lambda: self._w3.eth.get_block("latest"))
        return min(2 * block["baseFeePerGas"] + _TIP, _MAX_FEE)

    def _receipt_of(self, attempts: list[Attempt]) -> TxReceipt | None:
        for attempt in attempts:
            try:
                return self._ask(partial(self._w3.eth.get_transaction_receipt, HexBytes(attempt.hash)))
            except TransactionNotFound:
                continue
        return None

    def _reverted(self, attempt: Attempt) -> bool:
        receipt = self._receipt_of([attempt])
        return receipt is not None and receipt["status"] == 0 and self._is_deep(receipt)

    def _is_deep(self, receipt: TxReceipt) -> bool:
        return self._ask(lambda: self._w3.eth.block_number) - receipt["blockNumber"] >= self._patience.confirmations

    def _is_superseded(self, attempts: list[Attempt]) -> bool:
        """Whether another transaction took our nonce, deep enough to stay: ours can never be mined."""
        depth = self._ask(lambda: self._w3.eth.block_number) - self._patience.confirmations
        used = self._ask(lambda: self._w3.eth.get_transaction_count(self._account.address, max(depth, 0)))
        # Looked up again afterwards: it may have been mined between the two questions.
        return all(attempt.nonce < used for attempt in attempts) and self._receipt_of(attempts) is None

    def _explain_revert(self, call: Call, is_done: IsDone | None) -> Outcome:
        if self._is_done(is_done):  # mined behind somebody else's
            return Outcome(by_us=False)
        self._gas_for(call)  # raises with the contract's reason
        raise ChainError(f"{call.purpose} was refused when mined, and would be accepted now: try again")

    def _ask(self, question: Callable[[], R]) -> R:
        """Ask until the RPC answers; what it answers is the caller's concern."""
        last: Exception | None = None
        for _ in range(self._patience.polls):
            try:
                return question()
            except (*OUTAGES, RpcUnavailableError) as error:
                last = error
                self._patience.sleep(self._patience.poll_s)
        raise RpcUnavailableError(f"the RPC does not answer: {last}") from last
