"""Telling the user which rules other peers break, without letting those peers fill the screen."""

from collections import Counter
from dataclasses import dataclass, field

import trio

from iota_p2p.network.offences import Offence
from iota_p2p_crypto.identity import PeerId

# The first offence is told at once, later ones together: somebody who breaks rules all day costs a line now and then.
TELL_EVERY_S = 5.0
# Of different peers and rules told together; the rest are told as one number.
MAX_TOLD = 8
# Different peers and rules noted between two tellings: identities cost an attacker nothing.
MAX_NOTED = 256
# A detail may quote the offender's bytes.
MAX_DETAIL_CHARS = 300


@dataclass(frozen=True, slots=True)
class Refusal:
    """What one peer did against one rule since the last telling.

    Attributes:
        offence: the latest such offence, its detail in bounded, printable ASCII.
        count: how many there were.
    """

    offence: Offence
    count: int


@dataclass(slots=True)
class Refusals:
    """Offences noted and not yet told; hand `note` to an `OffenceLedger`."""

    _latest: dict[tuple[PeerId, str], Offence] = field(default_factory=dict)
    _counts: Counter[tuple[PeerId, str]] = field(default_factory=Counter)
    _num_others: int = 0
    _noted: trio.Event = field(default_factory=trio.Event)

    def note(self, offence: Offence) -> None:
        """Remember an offence until it is told."""
        key = (offence.peer_id, offence.rule)
        if key in self._latest or len(self._latest) < MAX_NOTED:
            self._latest[key] = offence
            self._counts[key] += 1
        else:
            self._num_others += 1
        self._noted.set()

    async def wait(self) -> None:
        """Wait for an offence; cancelling loses nothing."""
        await self._noted.wait()

    def take(self) -> tuple[list[Refusal], int]:
        """Return what to tell now, the most frequent first, and how many offences are left out; forget both."""
        frequent = self._counts.most_common(MAX_TOLD)
        told = [Refusal(_printable(self._latest[key]), count) for key, count in frequent]
        num_others = self._num_others + self._counts.total() - sum(count for _, count in frequent)
        self._latest.clear()
        self._counts.clear()
        self._num_others = 0
        self._noted = trio.Event()
        return told, num_others


def _printable(offence: Offence) -> Offence:
    """Return an offence whose detail is one short line that no terminal takes for a command."""
    detail = "".join(character if character.isprintable() else " " for character in offence.detail)
    detail = detail.encode("ascii", "backslashreplace").decode()[:MAX_DETAIL_CHARS]
    return Offence(offence.peer_id, offence.rule, detail)
