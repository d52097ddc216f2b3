"""Clients whose RPC and journal fail, die or lose answers exactly where a test says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3
from web3.types import RPCEndpoint, RPCResponse

from iota_p2p.settlement.contract_client import SettlementContract
from iota_p2p.settlement.journal import Attempt, Journal, open_journal
from iota_p2p.settlement.submitter import Patience, Submitter

Step = Callable[[str], None]


class Killed(BaseException):
    """The process dies here: nothing of ours catches it."""


class Executioner:
    """Counts the steps at which a death could make a difference, and kills at one of them."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.steps = 0
        self._kill_at = kill_at

    def __call__(self, _: str) -> None:
        self.steps += 1
        if self.steps == self._kill_at:
            raise Killed


class HookedProvider(HTTPProvider):
    """Calls a hook before a request is sent and after it has been answered; either may raise, or lose the answer."""

    before: Step
    after: Step
    num_forgotten: int  # transactions that the node takes and forgets, as full memory pools do

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        self.before(method)
        if method == "eth_sendRawTransaction" and self.num_forgotten:
            self.num_forgotten -= 1
            return {"jsonrpc": "2.0", "id": 1, "result": "0x" + "00" * 32}
        answer = super().make_request(method, params)
        self.after(method)
        return answer


class HookedJournal(Journal):
    """Calls a hook before a write, within its transaction, and after it is on disk."""

    hook: Step

    def _insert(self, attempt: Attempt) -> None:
        self.hook("signed")
        super()._insert(attempt)
        self.hook("written")

    def add_first(self, next_nonce: int, sign: Callable[[int], Attempt]) -> Attempt:
        attempt = super().add_first(next_nonce, sign)
        self.hook("committed")
        return attempt


def nothing(_: str) -> None:
    """A hook that lets everything pass."""


class Client:
    """One process of a user: a journal on disk, an RPC and an account."""

    def __init__(
        self,
        url: str,
        contract: str,
        account: LocalAccount,
        journal: Path,
        *,
        before: Step = nothing,
        after: Step = nothing,
        sleep: Callable[[float], None] = lambda _: None,
        polls: int = 100,
        confirmations: int = 0,
        num_forgotten: int = 0,
    ) -> None:
        provider = HookedProvider(url, exception_retry_configuration=None)
        provider.before = provider.after = nothing
        provider.num_forgotten = num_forgotten
        w3 = Web3(provider)
        self.journal = open_journal(journal, bytes(w3.eth.get_block(0)["hash"]), account.key)
        self.journal.__class__ = HookedJournal
        self.journal.hook = before  # type: ignore[attr-defined]  # it is one now
        patience = Patience(poll_s=0, polls=polls, confirmations=confirmations, sleep=sleep)
        self.submitter = Submitter(w3, account, self.journal, patience)
        self.contract = SettlementContract(w3, contract)
        provider.before, provider.after = before, after

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()
