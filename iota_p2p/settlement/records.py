"""The signed facts that a settlement rests on, taken from files: results, payout bindings, votes."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from iota_p2p.audit.archive import Archive
from iota_p2p.settlement.account import recover_typed
from iota_p2p_crypto.domains import PAYOUT_BINDING, RESULT, SETTLEMENT_VOTE
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError, UserError
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.settlement.payout_binding import PayoutBinding, accounts_of, open_binding
from iota_p2p_protocols.settlement.payout_tree import PayoutTree, payout_tree
from iota_p2p_protocols.settlement.settlement_vote import SettlementVote


@dataclass(slots=True)
class SettlementRecords:
    """A run's facts about payouts, each verified by itself.

    Attributes:
        run_id: which run.
        results: by epoch; several only if somebody signed other ones.
        bindings: of all peers, old and new.
        votes: by validators.
        num_invalid: envelopes of these kinds that did not open.
    """

    run_id: bytes
    results: dict[int, list[Verified[EpochResult]]] = field(default_factory=lambda: defaultdict(list))
    bindings: list[Verified[PayoutBinding]] = field(default_factory=list)
    votes: list[Verified[SettlementVote]] = field(default_factory=list)
    num_invalid: int = 0

    def tree(self, result: EpochResult) -> PayoutTree:
        """Return a result's payout tree, with the accounts that were bound when it was issued."""
        return payout_tree(result, accounts_of(self.bindings, issued_by_s=result.issued_s))

    def trees(self, epoch: int) -> Iterator[PayoutTree]:
        """Yield the tree of each different result of an epoch, the one with most signatures first."""
        by_digest: dict[bytes, Verified[EpochResult]] = {}
        for result in sorted(self.results.get(epoch, ()), key=lambda one: (-len(one.signers), one.digest)):
            by_digest.setdefault(result.digest, result)
        return (self.tree(result.payload) for result in by_digest.values())

    def the_tree(self, epoch: int) -> PayoutTree:
        """Return the tree of an epoch's result.

        Raises:
            UserError: if there is none, or more than one.
        """
        trees = list(self.trees(epoch))
        if len(trees) != 1:
            raise UserError(f"expected one result of epoch {epoch} in these files, found {len(trees)}")
        return trees[0]


def settlement_records(archive: Archive, run_id: bytes) -> SettlementRecords:
    """Open what an archive holds of one run; what does not open is counted and passed over."""
    records = SettlementRecords(run_id)
    for fact in archive.all():
        try:
            if fact.kind == RESULT.name:
                result = open_signed(fact.envelope, EpochResult)
                if result.payload.run_id == run_id:
                    records.results[result.payload.epoch].append(result)
            elif fact.kind == PAYOUT_BINDING.name:
                binding = open_binding(fact.envelope, recover_typed)
                if binding.payload.run_id == run_id:
                    records.bindings.append(binding)
            elif fact.kind.split("/")[0] == SETTLEMENT_VOTE.name:  # in a voter's own log its contract follows
                vote = open_signed(fact.envelope, SettlementVote)
                if vote.payload.run_id == run_id:
                    records.votes.append(vote)
        except RemoteProtocolError:
            records.num_invalid += 1
    return records
