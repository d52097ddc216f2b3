"""Agreeing on an epoch's result: one validator proposes, the others compute it themselves and vote.

Every elected validator signs at most one result of an epoch, for ever (`Ledger.sign_once`), so that two results of
one epoch can never both have the votes of over two thirds. The price: a proposer that sends different proposals to
different peers can spoil an epoch's result, but leaves two signatures that exclude each other. Who proposes is drawn;
if it is silent for PATIENCE_S the next one does, and whoever has not voted yet follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from iota_p2p.ledger.ledger import Ledger
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.seed_book import SeedBook
from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.envelope import Verified, merge_signatures
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.ids import RESULTS
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.election import Electorate, electorate, verify_election
from iota_p2p_protocols.scoring.result import (
    SEED_LAG,
    CertifiedResult,
    EpochResult,
    check_result,
    make_result,
    open_certified_result,
)
from iota_p2p_protocols.scoring.score_record import ScoreRecord, check_record
from iota_p2p_protocols.scoring.seed_chain import next_seed

PATIENCE_S = 1.0  # with one proposer: gossip takes a tenth of it
LOOK_EVERY_S = 0.1
# What the ledger calls our vote: a result with one signature, which is no certified result yet.
VOTE_KIND = "result-vote"
_TAG = "iota-p2p/proposer/1"


@dataclass(slots=True)
class Ballot:
    """One epoch's vote, as one peer sees it. Peers that were not elected only watch.

    Attributes:
        bulletin: what was said.
        ledger: where our vote is fixed before anybody sees it.
        rules: the run's.
        seeds: the chain.
        epoch: whose result it is to be.
    """

    bulletin: Bulletin
    ledger: Ledger
    rules: ScoringRules
    seeds: SeedBook
    epoch: int

    async def run(self) -> CertifiedResult:
        """Vote, wait for the others, and return the certified result; the caller sets the time limit."""
        began_s = trio.current_time()
        while True:
            attempt = int((trio.current_time() - began_s) / PATIENCE_S)
            records = self._records()
            if records and len(records) >= self._voters().quorum:
                await self._take_part(records, attempt)
                certified = self._counted(records)
                if certified is not None:
                    return certified
            await trio.sleep(LOOK_EVERY_S)

    def _voters(self) -> Electorate:
        return electorate(self.bulletin.all_registrations(), epoch=self.epoch, seats=self.rules.seats)

    def _records(self) -> dict[Digest, Verified[ScoreRecord]]:
        """Return the records of validators that were elected and follow the rules; others are charged."""
        seed, voters = self.seeds.seed(self.epoch + 1), self._voters()
        if seed is None:
            return {}
        good = {}
        for signer, record in tuple(self.bulletin.said(self.epoch).records.items()):
            try:
                check_record(record, self.rules)
                verify_election(signer, record.payload.election, voters, run_id=record.payload.run_id, seed=seed)
            except RemoteProtocolError as error:
                self.bulletin.member.network.ledger.charge(signer, error.rule, str(error))
                del self.bulletin.said(self.epoch).records[signer]
                continue
            good[record.digest] = record
        return good

    async def _take_part(self, records: dict[Digest, Verified[ScoreRecord]], attempt: int) -> None:
        me = self.bulletin.member.identity
        signers = {record.signer for record in records.values()}
        votes = self.bulletin.said(self.epoch).votes
        if me.peer_id not in signers or me.peer_id in votes:
            return
        for proposer in self._proposers(signers)[: attempt + 1]:
            proposal = self._result_of(list(records.values())) if proposer == me.peer_id else None
            if proposer in votes and self._agree(votes[proposer].payload, records):
                proposal = votes[proposer].payload
            if proposal is not None:
                sign = partial(seal_message, proposal, me)
                envelope = self.ledger.sign_once(VOTE_KIND, self.epoch, sign)
                await self.bulletin.publish(RESULTS, open_signed(envelope, EpochResult))
                return

    def _proposers(self, signers: set[PeerId]) -> Sequence[PeerId]:
        seed = self.seeds.seed(self.epoch + 1) or b""
        return sorted(signers, key=lambda peer_id: tagged_digest(_TAG, seed, peer_id_to_bytes(peer_id)))

    def _result_of(self, records: Sequence[Verified[ScoreRecord]]) -> EpochResult:
        """Return the result that some records make, with the seed from what they reveal."""
        seed, voters = self.seeds.seed(self.epoch + 1) or b"", self._voters()
        outputs = {
            record.signer: verify_election(
                record.signer, record.payload.election, voters, run_id=record.payload.run_id, seed=seed
            )
            for record in records
        }
        return make_result(records, voters.weights, next_seed(seed, self.epoch + SEED_LAG, outputs), self.rules.pot)

    def _agree(self, proposal: EpochResult, records: dict[Digest, Verified[ScoreRecord]]) -> bool:
        """Return whether a proposal is what its records make, of which we have all, and enough."""
        named = [records[Digest(name)] for name in proposal.records if name in records]
        enough = self._voters().quorum <= len(named) == len(proposal.records)
        return enough and proposal == self._result_of(named)

    def _counted(self, records: dict[Digest, Verified[ScoreRecord]]) -> CertifiedResult | None:
        """Return the certified result, once a quorum has voted for the same."""
        votes = self.bulletin.said(self.epoch).votes
        same: dict[bytes, list[Verified[EpochResult]]] = {}
        for vote in votes.values():
            same.setdefault(vote.payload_bytes, []).append(vote)
        for alike in same.values():
            named = [records[Digest(name)] for name in alike[0].payload.records if name in records]
            elected = {record.signer for record in named}
            envelopes = sorted({vote.envelope_bytes for vote in alike if elected.issuperset(vote.signers)})
            voters = {signer for vote in alike for signer in vote.signers} & elected
            if len(voters) >= self._voters().quorum and len(named) == len(alike[0].payload.records):
                merged = open_signed(merge_signatures(envelopes), EpochResult)
                check_result(merged.payload, named, self._voters().weights)
                return open_certified_result(merged, named, self._voters().quorum)
        return None
