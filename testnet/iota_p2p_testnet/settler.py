"""Settling a testnet's epochs: every peer votes with its own keys by its own ledger, in one process for all of them.

On a network of strangers each validator runs `settle --vote` for itself, and anybody submits. Here one process has the
homes of all peers and does the same for each: binds its account to it, takes a seat for the account, signs what *its*
ledger holds as the epoch's result, once and for ever, and lets one of the voters submit. The first account of the
local chain plays the sponsor: it pays bonds, the pot, and the gas of claims.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_canonical_address
from web3 import Web3
from web3.types import RPCEndpoint

from iota_p2p.home import key_path
from iota_p2p.key_store import load_key
from iota_p2p.ledger.ledger import FILE_NAME as LEDGER_NAME
from iota_p2p.ledger.ledger import Fact, Ledger, open_ledger
from iota_p2p.settlement.account import FILE_NAME as ACCOUNT_NAME
from iota_p2p.settlement.account import create_account, load_account, recover_typed
from iota_p2p.settlement.chain_audit import audit_chain
from iota_p2p.settlement.claiming import claim_epoch
from iota_p2p.settlement.contract_client import SettlementContract, deploy
from iota_p2p.settlement.contract_state import Terms
from iota_p2p.settlement.journal import FILE_NAME as JOURNAL_NAME
from iota_p2p.settlement.journal import open_journal
from iota_p2p.settlement.records import SettlementRecords
from iota_p2p.settlement.rpc import genesis_of
from iota_p2p.settlement.submitter import Call, Patience, Submitter
from iota_p2p.settlement.voting import seal_binding, vote_once
from iota_p2p_crypto.domains import PAYOUT_BINDING, RESULT
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.settlement.payout_binding import PayoutBinding, open_binding
from iota_p2p_protocols.settlement.settlement_vote import SettlementVote, signatures_for
from iota_p2p_protocols.settlement.typed_data import Settlement
from iota_p2p_testnet.payments import Standing

MAX_SEATS = 64  # the contract's; further peers are paid, and do not vote
BOND_WEI = 10**18
# For fees beside the bond: a settlement costs some 10^14 wei, so this lasts for ten thousand of them.
FEES_WEI = 10**18
DISPUTE_S = 2  # long enough to be seen, short enough to wait for at the end; nobody disputes on a chain of one
WITHDRAWAL_S = 60
FUNDED_EPOCHS = 100  # paid into the pot at once
# A peer may be slow to start; after this the others settle without its seat.
SEATING_S = 60.0
# Mined at once here: a look or two suffice, and what fails is tried again a second later.
_PATIENCE = Patience(poll_s=0.2, polls=25)


@dataclass(frozen=True, slots=True)
class Member:
    """One peer, with all that is needed to act for it."""

    identity: Identity
    account: LocalAccount
    ledger: Ledger
    submitter: Submitter

    def result(self, epoch: int) -> Verified[EpochResult] | None:
        """Return what its ledger holds as an epoch's result."""
        facts = self.ledger.facts(RESULT.name, epoch)
        return open_signed(facts[0].envelope, EpochResult) if facts else None


@dataclass(slots=True)
class Settler:
    """All peers of a testnet on one contract; `open_settler` opens one.

    Attributes:
        contract, w3, sponsor: where, through what, and who pays.
        run_id: the run.
        num_peers: how many are to be waited for before the first settlement.
        tell: hears how things stand after every change.
        files: closes what was opened.
        standing: how things stand.
        pending: certified epochs that are not settled.
        due: settled epochs with shares to claim, and when claims begin.
    """

    contract: SettlementContract
    w3: Web3
    sponsor: Submitter
    run_id: bytes
    num_peers: int
    tell: Callable[[Standing], None]
    files: ExitStack
    standing: Standing
    pending: set[int] = field(default_factory=set)
    due: dict[int, int] = field(default_factory=dict)
    _members: dict[Path, Member] = field(default_factory=dict)
    _seated: set[Path] = field(default_factory=set)
    _settled: set[int] = field(default_factory=set)
    _records: SettlementRecords = field(init=False)

    def __post_init__(self) -> None:
        """Begin without any records."""
        self._records = SettlementRecords(self.run_id)

    def join(self, home: Path, now_s: int) -> None:
        """Take in a peer whose ledger exists, for the first time or again: bind its account, look at its results."""
        if home in self._members:
            return
        identity = load_key(key_path(home))
        path = home / ACCOUNT_NAME
        account = load_account(path) if path.exists() else create_account(path)
        ledger = self.files.enter_context(open_ledger(home / LEDGER_NAME))
        member = Member(identity, account, ledger, open_submitter(self.w3, account, home / JOURNAL_NAME, self.files))
        self._members[home] = member
        self._records.bindings.append(_binding_of(member, self.run_id, now_s))
        for fact in ledger.facts(RESULT.name):
            self.certified(fact.epoch)

    def certified(self, epoch: int) -> None:
        """Take note that some peer has an epoch's result; every peer says so, and those that went on do again."""
        if epoch not in self._settled:
            self.pending.add(epoch)

    def work(self, elapsed_s: float, now_s: int) -> None:
        """Do what can be done now: take seats, settle, claim.

        Raises:
            ChainError, RemoteProtocolError, UserError: what could not be done; called again, it goes on.
        """
        for home, member in self._members.items():
            if home not in self._seated and len(self._seated) < MAX_SEATS:
                self._seat(member)
                self._seated.add(home)
        if elapsed_s < SEATING_S and len(self._seated) < min(self.num_peers, MAX_SEATS):
            return
        for epoch in sorted(self.pending):
            self._settle(epoch, now_s)
        chain_s = self.sponsor.ask(lambda: self.w3.eth.get_block("latest"))["timestamp"]
        for epoch in [epoch for epoch, begins_s in self.due.items() if begins_s <= chain_s]:
            self._claim(epoch)

    def pass_time(self) -> None:
        """Let the local chain's clock go on by a second, without waiting for ours."""
        self.w3.provider.make_request(RPCEndpoint("evm_mine"), [])

    def audit(self) -> None:
        """Compare the contract with the ledgers, and tell balances and the outcome."""
        found = audit_chain(self.contract, self._records)
        balances = {
            member.identity.peer_id: self.sponsor.ask(lambda: self.w3.eth.get_balance(member.account.address))  # noqa: B023 - called at once
            for member in self._members.values()
        }
        failures = tuple(str(failure) for failure in found.failures)
        self._say("the chain is audited", failures=failures, balances=balances)

    def _seat(self, member: Member) -> None:
        address = member.account.address
        gift = Call(f"gift/{address}", address, b"", BOND_WEI + FEES_WEI)
        self.sponsor.submit(gift)
        if self.sponsor.ask(lambda: self.contract.seat(address)) is None:
            seat = self.sponsor.ask(self.contract.free_seat)
            self.contract.register(member.submitter, address, member.identity.peer_id, seat)

    def _settle(self, epoch: int, now_s: int) -> None:
        """Settle an epoch once a quorum of seats has its result."""
        found = [(self._members[home], self._members[home].result(epoch)) for home in sorted(self._seated)]
        holders = [(member, result) for member, result in found if result is not None]
        if len(holders) < self.sponsor.ask(lambda: self.contract.quorum(epoch)):
            return
        state = self.sponsor.ask(lambda: self.contract.epoch_state(epoch))
        votes: dict[Settlement, list[Verified[SettlementVote]]] = defaultdict(list)
        for member, result in holders:
            tree = self._records.tree(result.payload)
            settlement = Settlement(self.run_id, epoch, state.round, bytes(tree.root), tree.total_wei)
            votes[settlement].append(self._vote(member, settlement, now_s))
        self._records.results[epoch] = [result for _, result in holders]
        if not state.is_settled:
            settlement = max(votes, key=lambda each: len(votes[each]))
            seats = self.sponsor.ask(lambda: self.contract.seats(epoch))
            address = self.contract.signing_address()
            signatures = signatures_for(address, settlement, votes[settlement], recover_typed, seats)
            self._fill_pot(settlement)
            drawn, _ = holders[epoch % len(holders)]
            self.contract.settle(drawn.submitter, settlement, signatures)
            state = self.sponsor.ask(lambda: self.contract.epoch_state(epoch))
        self._settled.add(epoch)
        self.pending.discard(epoch)
        self.due[epoch] = state.deadline_s
        self._say(
            f"epoch {epoch} is settled by {len(state.signers)} of {len(self._seated)} seats",
            epochs_settled=self.standing.epochs_settled + 1,
        )

    def _vote(self, member: Member, settlement: Settlement, now_s: int) -> Verified[SettlementVote]:
        address = self.contract.signing_address()
        envelope = vote_once(member.ledger, member.identity, member.account, address, settlement, now_s=now_s)
        return open_signed(envelope, SettlementVote)

    def _fill_pot(self, settlement: Settlement) -> None:
        if self.sponsor.ask(self.contract.treasury).pot_wei < settlement.total_wei:
            amount_wei = FUNDED_EPOCHS * settlement.total_wei
            self.contract.fund(self.sponsor, amount_wei, f"epoch-{settlement.epoch}")

    def _claim(self, epoch: int) -> None:
        """Bring every share of an epoch to its account; count them when all are there."""
        if claim_epoch(self.contract, self.sponsor, self._records, epoch).waits_for:
            return
        tree = self._records.the_tree(epoch)
        peers = {bytes(to_canonical_address(one.account.address)): one for one in self._members.values()}
        paid = dict(self.standing.paid)
        for payout in tree.payouts:
            peer_id = peers[payout.account].identity.peer_id
            paid[peer_id] = paid.get(peer_id, 0) + payout.amount_wei
        del self.due[epoch]
        self._say(
            f"epoch {epoch} is paid: {len(tree.payouts)} claims",
            claims_paid=self.standing.claims_paid + len(tree.payouts),
            total_paid=self.standing.total_paid + tree.total_wei,
            paid=paid,
        )

    def _say(self, note: str, **changed: object) -> None:
        fields = {"note": note, "pending": tuple(sorted(self.pending)), **changed}
        self.standing = self.standing.model_copy(update=fields)
        self.tell(self.standing)


def open_submitter(w3: Web3, account: LocalAccount, journal: Path, files: ExitStack) -> Submitter:
    """Return an account's way to the chain, with a journal that `files` closes."""
    opened = open_journal(journal, genesis_of(w3), to_canonical_address(account.address))
    files.callback(opened.close)
    return Submitter(w3, account, opened, _PATIENCE)


def deploy_contract(w3: Web3, sponsor: Submitter, run_id: bytes) -> SettlementContract:
    """Return the run's contract on this chain, made on the first start."""
    # The settler waits for all seats itself; a testnet of one peer is settled by one.
    terms = Terms(run_id, BOND_WEI, 1, DISPUTE_S, WITHDRAWAL_S)
    return deploy(w3, sponsor, terms, f"testnet/{run_id.hex()}")


def _binding_of(member: Member, run_id: bytes, now_s: int) -> Verified[PayoutBinding]:
    """Return the binding of a peer and its account: that in its ledger, else a new one, which is kept there."""
    ours = to_canonical_address(member.account.address)
    for fact in member.ledger.facts(PAYOUT_BINDING.name):
        known = open_binding(fact.envelope, recover_typed)
        if (known.payload.run_id, known.signer, known.payload.account) == (run_id, member.identity.peer_id, ours):
            return known
    envelope = seal_binding(member.identity, member.account, run_id, now_s, sequence=now_s)
    member.ledger.add([Fact(PAYOUT_BINDING.name, 0, member.identity.peer_id, envelope)])
    return open_binding(envelope, recover_typed)
