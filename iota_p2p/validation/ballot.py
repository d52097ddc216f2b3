"""Agreeing on an epoch's result: validators say what they prefer, round by round, and then vote for it, once.

Every elected validator signs at most one result of an epoch, for ever (`Ledger.sign_once`), so that two results of
one epoch can never both have the votes of over two thirds. Before that, in each round:

    at once     the round's proposer says which records it prefers; so does whoever saw a quorum agree before
    then        the others prefer the same, or after WAIT of the round what they have themselves
    by VOTE_BY  who sees a quorum prefer one thing in this round votes for it; later it only prefers it from then on

Whoever votes has seen the preferences half a round before its end, and gossip brings them to everybody by then: so
nobody prefers anything else afterwards. A proposer that is silent costs a part of a round, one that sends different
things to different peers costs a round, and is convicted. What is voted for is what the records make: everybody
computes it, no proposer's bytes are signed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import floor

import trio

from iota_p2p.ledger.ledger import Ledger
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.seed_book import SeedBook
from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.envelope import Verified, merge_signatures
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.ids import PREFERENCES, RESULTS
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.election import Electorate, verify_election
from iota_p2p_protocols.scoring.preference import MAX_ROUNDS, Preference, RecordNames, agreed
from iota_p2p_protocols.scoring.result import (
    MAX_RECORDS,
    SEED_LAG,
    CertifiedResult,
    EpochResult,
    make_result,
    open_certified_result,
)
from iota_p2p_protocols.scoring.score_record import ScoreRecord, check_record
from iota_p2p_protocols.scoring.seed_chain import next_seed
from iota_p2p_protocols.scoring.silence import silent_validators

# Shares of a round: how long a proposer is waited for, and until when what a quorum prefers is voted for at once.
WAIT = 0.25
VOTE_BY = 0.5
LOOKS_PER_ROUND = 20
# What the ledger calls our vote (a result with one signature is no certified result yet) and our preferences.
VOTE_KIND = "result-vote"
PREFERENCE_KIND = "preference"
LIFETIME_S = 3600
_TAG = "iota-p2p/proposer/1"

Records = Mapping[Digest, Verified[ScoreRecord]]


@dataclass(slots=True)
class Ballot:
    """One epoch's vote, as one peer sees it. Peers that were not elected only watch.

    Attributes:
        bulletin: what was said.
        ledger: where our vote is fixed before anybody sees it.
        rules: the run's.
        seeds: the chain.
        epoch: whose result it is to be.
        round_s: how long a round lasts, in seconds: gossip takes a tenth of half of it.
    """

    bulletin: Bulletin
    ledger: Ledger
    rules: ScoringRules
    seeds: SeedBook
    epoch: int
    round_s: float
    _voters: Electorate = field(default_factory=lambda: Electorate(0, {}, 1))
    # Outputs of the records that hold, by the record's digest: a proof takes longer to check than a round has looks.
    _outputs: dict[Digest, bytes] = field(default_factory=dict)

    async def run(self) -> CertifiedResult:
        """Vote, wait for the others, and return the certified result; the caller sets the time limit.

        The first round begins with a quorum of records, which gossip brings to all at about the same time, however
        differently their epochs ended.
        """
        began_s: float | None = None
        while True:
            records = self._records()
            if began_s is None and len(self._own_choice(records)) >= self._voters.quorum:
                began_s = trio.current_time()
            if began_s is not None:
                elapsed = (trio.current_time() - began_s) / self.round_s
                number = min(floor(elapsed), MAX_ROUNDS - 1)
                await self._take_part(records, number, elapsed - number)
                certified = self._counted(records)
                if certified is not None:
                    return certified
            await trio.sleep(self.round_s / LOOKS_PER_ROUND)

    def _records(self) -> Records:
        """Return the records of validators that were elected and follow the rules; others are charged."""
        seed = self.seeds.seed(self.epoch + 1)
        if seed is None:
            return {}
        voters = self.bulletin.electorate(self.epoch, self.rules.seats)
        if voters != self._voters:  # somebody's registration came late
            self._voters, self._outputs = voters, {}
        said = self.bulletin.said(self.epoch)
        both = (*said.records.values(), *said.second_records.values())
        return {one.digest: one for one in both if one.signer in voters.weights and self._holds(one, seed)}

    def _holds(self, record: Verified[ScoreRecord], seed: Digest) -> bool:
        signer = record.signer
        if record.digest in self._outputs:
            return True
        try:
            check_record(record, self.rules)
            self._outputs[record.digest] = verify_election(
                signer, record.payload.election, self._voters, run_id=record.payload.run_id, seed=seed
            )
        except RemoteProtocolError as error:
            self.bulletin.member.network.ledger.charge(signer, error.rule, str(error))
            for kept in (self.bulletin.said(self.epoch).records, self.bulletin.said(self.epoch).second_records):
                if kept.get(signer) is record:
                    del kept[signer]
            return False
        return True

    async def _take_part(self, records: Records, number: int, elapsed: float) -> None:
        """Say what we prefer in this round, and vote when it is time; `elapsed` is the share of it gone by."""
        me, said = self.bulletin.member.identity.peer_id, self.bulletin.said(self.epoch)
        if me not in {record.signer for record in records.values()} or me in said.votes:
            return
        if (number, me) not in said.preferences:
            preferred = self._preferred(records, number, elapsed)
            if preferred is not None:
                await self.bulletin.publish(PREFERENCES, self._prefer(number, preferred))
        value = self._agreed(records, number)
        if value is not None and (elapsed < VOTE_BY or number == MAX_ROUNDS - 1):
            result = self._result_of([records[Digest(name)] for name in value])
            sign = partial(seal_message, result, self.bulletin.member.identity)
            envelope = self.ledger.sign_once(VOTE_KIND, self.epoch, sign)
            await self.bulletin.publish(RESULTS, open_signed(envelope, EpochResult))

    def _preferred(self, records: Records, number: int, elapsed: float) -> RecordNames | None:
        """Return what to prefer in a round, or None as long as its proposer may still say so."""
        for before in range(number - 1, -1, -1):
            value = self._agreed(records, before)
            if value is not None:
                return value
        proposer = self._proposers(records)[number % len({record.signer for record in records.values()})]
        proposal = self.bulletin.said(self.epoch).preferences.get((number, proposer))
        names = () if proposal is None else proposal.payload.records
        signers = {records[Digest(name)].signer for name in names if name in records}
        if self._voters.quorum <= len(names) == len(signers):
            return names
        if elapsed < WAIT and proposer != self.bulletin.member.identity.peer_id:
            return None
        mine = self._own_choice(records)
        return mine if len(mine) >= self._voters.quorum else None

    def _own_choice(self, records: Records) -> RecordNames:
        """Return all records but those of signers of two."""
        convicted = self.bulletin.said(self.epoch).second_records
        mine = sorted(name for name, record in records.items() if record.signer not in convicted)
        return tuple(mine[:MAX_RECORDS])

    def _prefer(self, number: int, names: RecordNames) -> Verified[Preference]:
        """Return our preference of a round, signed once: the same again after a restart."""
        member = self.bulletin.member
        message = Preference(
            run_id=self.bulletin.share.terms.run_id,
            sequence=floor(member.clock() * 1000),
            issued_s=floor(member.clock()),
            expires_s=floor(member.clock()) + LIFETIME_S,
            epoch=self.epoch,
            round=number,
            records=names,
        )
        sign = partial(seal_message, message, member.identity)
        return open_signed(self.ledger.sign_once(f"{PREFERENCE_KIND}/{number}", self.epoch, sign), Preference)

    def _agreed(self, records: Records, number: int) -> RecordNames | None:
        """Return what a quorum prefers in a round; a vote is a preference for ever, as voters say no more."""
        said = self.bulletin.said(self.epoch)
        signers = {name: record.signer for name, record in records.items()}
        preferred = {signer: one.payload.records for (of, signer), one in said.preferences.items() if of == number}
        preferred |= {signer: vote.payload.records for signer, vote in said.votes.items()}
        return agreed(preferred, signers, self._voters.quorum)

    def _proposers(self, records: Records) -> Sequence[PeerId]:
        seed = self.seeds.seed(self.epoch + 1) or b""
        signers = {record.signer for record in records.values()}
        return sorted(signers, key=lambda peer_id: tagged_digest(_TAG, seed, peer_id_to_bytes(peer_id)))

    def _result_of(self, records: Sequence[Verified[ScoreRecord]]) -> EpochResult:
        """Return the result that some records make, with the seed from what they reveal."""
        seed = self.seeds.seed(self.epoch + 1) or b""
        outputs = {record.signer: self._outputs[record.digest] for record in records}
        after = next_seed(seed, self.epoch + SEED_LAG, outputs)
        return make_result(records, self._voters.weights, after, self.rules.pot)

    def _counted(self, records: Records) -> CertifiedResult | None:
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
            if len(voters) >= self._voters.quorum and len(elected) == len(alike[0].payload.records):
                merged = open_signed(merge_signatures(envelopes), EpochResult)
                if merged.payload != self._result_of(named):
                    continue  # of peers whose electorate is another than ours
                certified = open_certified_result(merged, named, self._voters.quorum)
                heard = {record.signer for record in records.values()}
                return replace(certified, silent=silent_validators(self._voters, heard))
        return None
