"""What an audit can find wrong, each kind with the exit code of its own that a script can act on."""

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any


class Check(IntEnum):
    """A kind of failure; its number is the exit code (README, "Exit codes"). The lowest found is the command's."""

    FORM = 10  # bytes that are not what their kind says, or whose signature does not hold
    PLACE = 11  # a fact kept under another kind, epoch or signer than its own words say: moved or swapped
    SUM = 12  # a record that breaks its own rules: sums, order, self-scoring
    CHAIN = 13  # a validator's records do not follow each other
    LOG = 14  # a signed tree head does not cover the records
    ELECTION = 15  # a validator that was not elected
    RESULT = 16  # a result that does not follow from its records, or without a quorum
    EQUIVOCATION = 17  # somebody signed two statements that exclude each other
    MISSING = 18  # something named by digest that is not there
    RECOMPUTED = 19  # a score that its evidence does not bear out
    DIFFERENT = 20  # two archives that disagree
    SETTLEMENT = 21  # a contract whose state is not what the signed results say


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing wrong.

    Attributes:
        check: which kind.
        subject: what it is about, as a person would name it.
        rule: the stable name of the broken rule.
        reason: expected and got.
        guilty: the peer that signed it, where that is certain.
    """

    check: Check
    subject: str
    rule: str
    reason: str
    guilty: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {**asdict(self), "check": self.check.name.lower()}

    def __str__(self) -> str:
        """Return it in one line."""
        by = f", signed by {self.guilty}" if self.guilty else ""
        return f"{self.check.name}: {self.subject}{by}: {self.reason} [{self.rule}]"
