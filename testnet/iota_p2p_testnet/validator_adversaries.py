"""Validators that lie, by name: honest in everything but what they sign of an epoch's scores.

config = ValidationConfig(..., kind=EquivocatingValidator)
iota-p2p testnet --adversary lying-validator=1
"""

from collections.abc import Mapping

from iota_p2p.validation.ballot import Ballot, Records
from iota_p2p.validation.validator import Prepared, Validator
from iota_p2p_protocols.ids import PREFERENCES, SCORES
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.combination import ScoringRules, combine
from iota_p2p_protocols.scoring.preference import Preference
from iota_p2p_protocols.scoring.score_record import ScoreRecord

FAVOUR = 100  # what a false record makes of one peer's work


class FalseValidator(Validator):
    """Signs that one peer did a hundred times its work, and all others nothing."""

    def _sign(self, epoch: int, prepared: Prepared) -> bytes:
        honest = open_signed(super()._sign(epoch, prepared), ScoreRecord).payload
        return seal_message(falsified(honest, self.rules), self.bulletin.member.identity)


class EquivocatingBallot(Ballot):
    """Prefers two things in every round in which it prefers anything."""

    async def _take_part(self, records: Records, number: int, elapsed: float) -> None:
        me, said = self.bulletin.member.identity, self.bulletin.said(self.epoch)
        was_silent = (number, me.peer_id) not in said.preferences
        await super()._take_part(records, number, elapsed)
        spoken = said.preferences.get((number, me.peer_id))
        if was_silent and spoken is not None and len(spoken.payload.records) > 1:
            other = spoken.payload.model_copy(update={"records": spoken.payload.records[1:]})
            await self.bulletin.publish(PREFERENCES, open_signed(seal_message(other, me), Preference))


class EquivocatingValidator(Validator):
    """Signs two records of every epoch, and prefers two things in its ballots."""

    ballot = EquivocatingBallot

    async def _reveal(self, epoch: int) -> None:
        await super()._reveal(epoch)
        me, said = self.bulletin.member.identity, self.bulletin.said(epoch)
        mine = said.records.get(me.peer_id)
        if mine is not None and me.peer_id not in said.second_records:
            other = seal_message(falsified(mine.payload, self.rules), me)
            await self.bulletin.publish(SCORES, open_signed(other, ScoreRecord))


class WithholdingValidator(Validator):
    """Scores and says nothing: no record, no preference, no vote, and with them no output for the next seed."""

    async def _reveal(self, epoch: int) -> None:
        self._prepared.pop(epoch, None)


class LyingValidator(EquivocatingValidator):
    """Of every three epochs it equivocates about two, first about a false record, and withholds its record of one."""

    def _sign(self, epoch: int, prepared: Prepared) -> bytes:
        honest = super()._sign(epoch, prepared)
        if epoch % 3:
            return honest
        false = falsified(open_signed(honest, ScoreRecord).payload, self.rules)
        return seal_message(false, self.bulletin.member.identity)

    async def _reveal(self, epoch: int) -> None:
        if epoch % 3 == 2:  # noqa: PLR2004 - the third of three
            self._prepared.pop(epoch, None)
        await super()._reveal(epoch)


VALIDATOR_KINDS: Mapping[str, type[Validator]] = {
    "false-validator": FalseValidator,
    "lying-validator": LyingValidator,
    "withholding-validator": WithholdingValidator,
}


def falsified(honest: ScoreRecord, rules: ScoringRules) -> ScoreRecord:
    """Return a record that favours the first peer in it, and whose own sums are right."""
    rows = []
    for number, row in enumerate(honest.rows):
        found = row.findings.model_copy(update={"work": 0 if number else FAVOUR * row.findings.work})
        score = combine(found, honest.epoch, honest.mean_loss_micronats, rules)
        rows.append(row.model_copy(update={"findings": found, "score": score}))
    return honest.model_copy(update={"rows": tuple(rows)})
