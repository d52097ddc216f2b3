"""Stages that nobody serves, and how they came back. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outage:
    """A stage that lost its last peer.

    Attributes:
        stage: which one.
        began_s: when.
        steps: inner steps it had behind it, as far as its peers had said.
        seconds: how long until somebody served it again; None if nobody does.
        kind: where its state came from, as who took it says: `custodians`, `own-disk`, or `seed` if it is lost.
        steps_after: inner steps of that state.
    """

    stage: int
    began_s: float
    steps: int
    seconds: float | None = None
    kind: str | None = None
    steps_after: int | None = None


@dataclass(slots=True)
class Outages:
    """All of them, in the order in which they began."""

    all: list[Outage] = field(default_factory=list)
    _served: dict[int, int] = field(default_factory=dict)  # steps of the stages that somebody serves

    def look(self, served: Mapping[int, int], now_s: float) -> list[Outage]:
        """Take in which stages are served now, with their steps; return the outages that began or ended."""
        changed = []
        for stage in self._served.keys() - served.keys():
            changed.append(Outage(stage, now_s, self._served[stage]))
            self.all.append(changed[-1])
        for outage in self._open():
            if outage.stage in served:
                outage.seconds = now_s - outage.began_s
                changed.append(outage)
        self._served = dict(served)
        return changed

    def recovered(self, stage: int, kind: str, steps: int) -> None:
        """Note what a peer says of the state it found for a stage that nobody served."""
        for outage in self._open():
            if outage.stage == stage:
                outage.kind, outage.steps_after = kind, steps

    def _open(self) -> list[Outage]:
        return [outage for outage in self.all if outage.seconds is None]
