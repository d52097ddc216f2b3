"""Which peers a testnet kills, and when: the grammar of `--kill`, and the plan made of it. Pure.

    SPEC  = WHO "@" TIME [ "/" TIME ] [ "+" TIME ]
    WHO   = NUMBER | "random" [ ":" COUNT ] | "stage:" NUMBER
    TIME  = SECONDS "s"

    random@20s           one peer, drawn, after 20 seconds; it stays dead
    3@10s+5s             peer 3 after 10 seconds; it is started again 5 seconds later
    random:2@30s/20s+8s  two peers after 30 seconds and again every 20, each back after 8
    stage:1@40s          all peers that serve stage 1 then, at once

Time counts from the moment all peers run. A draw never takes the last live peer: that would end the network. Equal
seeds draw equal peers, as long as the same ones are alive. Of a stage's peers one is left if they are all there are.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from iota_p2p_crypto.errors import UserError

# Nine digits of a number of seconds are eleven days; longer input is a slip of the finger.
_TIME = r"\d{1,6}(?:\.\d{1,3})?"
_SPEC = re.compile(
    r"(?:(?P<peer>[1-9]\d{0,3})|stage:(?P<stage>\d{1,4})|random(?::(?P<count>[1-9]\d{0,3}))?)"
    rf"@(?P<at>{_TIME})s(?:/(?P<every>{_TIME})s)?(?:\+(?P<back>{_TIME})s)?",
    re.ASCII,
)
# Faster than this, a peer dies before it has joined, and the testnet does nothing but start processes.
MIN_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class KillRule:
    """One `--kill`.

    Attributes:
        peer: whom; None draws `count` of those alive.
        stage: all who hold it; None for a rule about peers.
        count: how many.
        at_s: when first.
        every_s: how long until it happens again; None for once.
        back_s: how long until the killed peer is started again; None for never.
    """

    peer: int | None
    count: int
    at_s: float
    every_s: float | None
    back_s: float | None
    stage: int | None = None

    def __str__(self) -> str:
        """Return the text that parses to this rule."""
        who = str(self.peer) if self.peer is not None else f"random:{self.count}"
        who = who if self.stage is None else f"stage:{self.stage}"
        every = "" if self.every_s is None else f"/{self.every_s:g}s"
        back = "" if self.back_s is None else f"+{self.back_s:g}s"
        return f"{who}@{self.at_s:g}s{every}{back}"


@dataclass(frozen=True, slots=True)
class Kill:
    """One peer to kill now."""

    peer: int
    back_s: float | None


def parse_kill(text: str, num_peers: int) -> KillRule:
    """Return the rule of one `--kill` of a testnet with peers 1 to `num_peers`; raises UserError if it is none."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise UserError(
            f"--kill {text!r} is not understood: write 3@10s+5s, random@20s, random:2@30s/20s+8s or stage:1@40s"
        )
    peer, stage, count, at, every, back = match.group("peer", "stage", "count", "at", "every", "back")
    rule = KillRule(
        peer=None if peer is None else int(peer),
        count=int(count or 1),
        at_s=float(at),
        every_s=None if every is None else float(every),
        back_s=None if back is None else float(back),
        stage=None if stage is None else int(stage),
    )
    if max(rule.peer or 0, rule.count) > num_peers:
        raise UserError(f"--kill {text!r} names more than the {num_peers} peers there are")
    if rule.every_s is not None and rule.every_s < MIN_EVERY_S:
        raise UserError(f"--kill {text!r} must leave at least {MIN_EVERY_S:g} s between its rounds")
    return rule


class KillPlan:
    """What is due when: ask `next_s` how long to wait, then `due` whom to kill."""

    def __init__(self, rules: Sequence[KillRule], seed: int) -> None:
        """Plan the rules' first rounds."""
        self._rules = rules
        self._seed = seed
        self._rounds: list[int | None] = [0] * len(rules)  # the next round of each; None when it is over

    @property
    def next_s(self) -> float | None:
        """When something is due next; None if nothing ever is."""
        times = (self._time(index) for index in range(len(self._rules)))
        return min((time_s for time_s in times if time_s is not None), default=None)

    def due(
        self, now_s: float, alive: Collection[int], holders: Mapping[int, Collection[int]] | None = None
    ) -> Sequence[Kill]:
        """Return whom to kill now, each at most once, in order of the rules; rounds missed meanwhile are skipped.

        `holders` are the peers that hold each stage.
        """
        kills: dict[int, Kill] = {}
        for index, rule in enumerate(self._rules):
            time_s, current = self._time(index), self._rounds[index]
            if time_s is None or current is None or time_s > now_s:
                continue
            left = set(alive) - set(kills)
            chosen = self._chosen(index, current, left)
            if rule.stage is not None:
                chosen = sorted(left & set((holders or {}).get(rule.stage, ())))
                chosen = chosen[len(chosen) == len(left) :]
            for peer in chosen:
                kills[peer] = Kill(peer, rule.back_s)
            self._rounds[index] = _round_after(rule, current, now_s)
        return tuple(kills.values())

    def _time(self, index: int) -> float | None:
        current, rule = self._rounds[index], self._rules[index]
        return None if current is None else rule.at_s + current * (rule.every_s or 0.0)

    def _chosen(self, index: int, current: int, alive: Collection[int]) -> Sequence[int]:
        rule = self._rules[index]
        if rule.peer is not None:
            return [rule.peer] if rule.peer in alive else []
        draw = Random(f"{self._seed}/{index}/{current}")  # noqa: S311 - repeatable, and nothing depends on secrecy
        return draw.sample(sorted(alive), min(rule.count, max(0, len(alive) - 1)))


def _round_after(rule: KillRule, current: int, now_s: float) -> int | None:
    """Return the first round after this one that is still to come."""
    if rule.every_s is None:
        return None
    later = max(current + 1, int((now_s - rule.at_s) // rule.every_s))
    while rule.at_s + later * rule.every_s <= now_s:  # twice at most: division rounds
        later += 1
    return later
