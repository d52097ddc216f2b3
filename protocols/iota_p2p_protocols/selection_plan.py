"""The plan of one round of self-selection: its steps and the rules they keep. Theory of operation: `selection`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.rebalance import (
    Candidate,
    StageNeeds,
    Stages,
    Throughputs,
    gain,
    ideal_tokens_per_s,
    throughputs,
)

ROUND_S = 10  # gossip reaches everybody in a second or two, so a round's steps are known to all in the next
LEASE_S = 300  # SWARM's rebalancing period: a stage's state takes minutes to fetch and must pay for itself
# Of what the mover's own speed can add: a move is worth a download only if the stage it leaves stays that far above
# the slowest. In units of the mover, because in a big swarm no single peer changes a stage by much.
CLEAR_GAIN = 0.1
PEERS_PER_MOVE = 64  # one move per round in small swarms, a few in big ones, where more peers come and go
WIDER_GAIN = 1.1  # one more stage costs memory and a merge in each epoch: it must bring a tenth
MOVE_BELOW = 0.98  # of the ideal: what is left above it is less than what a move costs
HAND_OVER_ABOVE = 0.99  # of the ideal: so far above MOVE_BELOW that no hand-over calls for a move
MAX_DRAWN = 16  # peers planned for per round and kind: bounds the work of a decision in a swarm of any size

Kind = Literal["keep", "join", "take", "move", "hand-over", "shrink"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a peer should hold from now on.

    Attributes:
        stages: all of them, old and new, ascending; empty only if none fits.
        kind: the rule that decided.
        reason: one sentence for people, with the figures that mattered.
    """

    stages: Stages
    kind: Kind
    reason: str


@dataclass(slots=True)
class RoundPlan:
    """A round's plan in the making.

    Attributes:
        needs: of each stage.
        peers: the live peers, bounded and without lapsed promises.
        now_s: the time.
        ideal: upper bound of the pipeline's throughput.
        serving: for each stage the peers that serve it now, before any step of this round.
        groups: speed by set of stages, all steps planned so far included.
        now: throughputs of `groups`.
        choices: the steps planned so far.
    """

    needs: tuple[StageNeeds, ...]
    peers: tuple[Candidate, ...]
    now_s: float
    ideal: float
    serving: list[list[Candidate]]
    groups: dict[Stages, int] = field(default_factory=dict)
    now: Throughputs = ()
    choices: dict[PeerId, Choice] = field(default_factory=dict)

    @classmethod
    def of(cls, needs: tuple[StageNeeds, ...], peers: tuple[Candidate, ...], now_s: float) -> "RoundPlan":
        """Start a plan in which everybody keeps what they hold."""
        serving: list[list[Candidate]] = [[] for _ in needs]
        for peer in peers:
            for held in peer.held:
                if held.serving:
                    serving[held.stage].append(peer)
        plan = cls(needs, peers, now_s, ideal_tokens_per_s(needs, peers), serving)
        for peer in peers:
            plan.groups[peer.stages] = plan.groups.get(peer.stages, 0) + peer.tokens_per_s
        plan.now = throughputs(plan.needs, plan.groups)
        return plan

    def place_arrivals(self) -> None:
        """Let peers that hold nothing take what helps the slowest stages."""
        for peer in self.draw(peer for peer in self.peers if not peer.held)[:MAX_DRAWN]:
            best = self.best(peer, self.ranges(peer))
            if best is None:
                reason = f"hold nothing: no stage fits in {peer.memory_bytes:,} bytes"
                self.choices[peer.peer_id] = Choice((), "keep", reason)
                continue
            slowest = min(range(len(self.now)), key=lambda stage: self.now[stage])
            speed = self.now[slowest]
            self.take(peer, best, "join", f"join {name_stages(best)}: slowest was {slowest} at {speed:.0f} tokens/s")

    def fill_empty_stages(self) -> None:
        """Let one drawn peer take each stage without a holder, whatever its lease."""
        for stage in range(len(self.needs)):
            if self.now[stage] > 0:
                continue
            # Holders of stages with speed to spare first: drawing from the slowest would only move the gap.
            ranked = self.draw(self.settled(), b"empty", stage)
            ranked.sort(key=lambda peer: min(self.now[held] for held in peer.stages) < self.ideal)
            for peer in ranked:
                best = self.best(peer, self.steps_towards(peer, stage))
                if best is not None:
                    self.take(peer, best, "take", f"take {name_stages(best)}: nobody holds {stage}")
                    break

    def move_some(self) -> bool:
        """Let drawn peers move to the slowest stage while that is a clear gain; return whether any does."""
        for moves in range(1 + len(self.peers) // PEERS_PER_MOVE):
            slowest = min(self.now)
            if slowest >= MOVE_BELOW * self.ideal or not self.move_one(self.now.index(slowest)):
                return moves > 0
        return True

    def move_one(self, target: int) -> bool:
        """Let the first drawn peer that can clearly help a stage move there; return whether one does."""
        givers = (peer for peer in self.settled() if self.lease_is_over(peer) and self.can_give(peer, target))
        for peer in self.draw(givers, b"move", target)[:MAX_DRAWN]:
            best = self.best(peer, self.steps_towards(peer, target), share=CLEAR_GAIN)
            if best is not None:
                gained = gain(self.now, self.after(peer, best))
                where, speed = f"{name_stages(peer.stages)} to {name_stages(best)}", self.now[target]
                reason = f"go from {where}: slowest stage it touches, at {speed:.0f} tokens/s, gains {gained:.0f}"
                self.take(peer, best, "move", reason)
                return True
        return False

    def lease_is_over(self, peer: Candidate) -> bool:
        """Return whether a peer has held all its stages for long enough."""
        return all(self.now_s - held.since_s >= LEASE_S for held in peer.held)

    def can_give(self, peer: Candidate, target: int) -> bool:
        """Return whether a peer's stages may have speed to spare for a slow one: a quick look before `best`."""
        spare = max(self.now[stage] for stage in peer.stages) - self.now[target]
        added = peer.tokens_per_s / self.needs[target].cost
        # Without memory for both it takes along all it has.
        both = len(peer.stages) > 1 or self.fits(peer, {target, *peer.stages})
        return spare >= (CLEAR_GAIN if both else 1 + CLEAR_GAIN) * added

    def hand_over(self) -> None:
        """Let drawn peers that hold several stages drop those that others serve well enough."""
        for peer in self.draw(peer for peer in self.settled() if len(peer.stages) > 1)[:MAX_DRAWN]:
            kept = peer.stages
            while (fewer := self.drop_one(peer, kept)) is not None:
                kept = fewer
            if kept != peer.stages:
                dropped = tuple(stage for stage in peer.stages if stage not in kept)
                self.take(peer, kept, "hand-over", f"keep {name_stages(kept)}: others serve {name_stages(dropped)}")

    def drop_one(self, peer: Candidate, kept: Stages) -> Stages | None:
        """Return `kept` without the stage that is missed least; None if each would be missed."""
        before = self.after(peer, kept)
        best: tuple[tuple[bool, float], Stages] | None = None
        for stage in set(kept) - self.pinned(peer):
            fewer = tuple(other for other in kept if other != stage)
            after = self.after(peer, fewer)
            if fewer and (min(after) >= HAND_OVER_ABOVE * self.ideal or gain(before, after) >= 0):
                key = (_is_range(fewer), min(after))
                best = max(best, (key, fewer)) if best else (key, fewer)
        return best[1] if best else None

    def settled(self) -> Sequence[Candidate]:
        """Return the peers that hold stages and have no step in this plan."""
        return [peer for peer in self.peers if peer.held and peer.peer_id not in self.choices]

    def draw(self, peers: Iterable[Candidate], purpose: bytes = b"", stage: int = 0) -> list[Candidate]:
        """Return peers in an order that everybody knows and nobody chooses, new in each round."""
        number = int(self.now_s // ROUND_S)
        return sorted(peers, key=lambda peer: _lot(number, purpose, stage, peer))

    def fits(self, peer: Candidate, stages: Iterable[int]) -> bool:
        """Return whether a peer has the memory for some stages."""
        return sum(self.needs[stage].memory_bytes for stage in stages) <= peer.memory_bytes

    def ranges(self, peer: Candidate) -> list[Stages]:
        """Return every range of stages that fits a peer: neighbours, because they cost no hop between them."""
        found = []
        for first in range(len(self.needs)):
            for end in range(first + 1, len(self.needs) + 1):
                stages = tuple(range(first, end))
                if not self.fits(peer, stages):
                    break
                found.append(stages)
        return found

    def pinned(self, peer: Candidate) -> set[int]:
        """Return the stages a peer must not leave: nobody else serves them, or it is their anchor in this round.

        The anchor is the server with the fewest stages, so that those who hold many can hand over to it.
        """
        number = int(self.now_s // ROUND_S)
        pinned = set()
        for stage in peer.stages:
            others = [other for other in self.serving[stage] if other.peer_id != peer.peer_id]
            anchors = min(
                self.serving[stage] or [peer],
                key=lambda other: (len(other.stages), _lot(number, b"anchor", stage, other)),
            )
            if not others or anchors.peer_id == peer.peer_id:
                pinned.add(stage)
        return pinned

    def steps_towards(self, peer: Candidate, target: int) -> list[Stages]:
        """Return what a peer could hold instead, so that it holds the target and leaves no stage it must not leave."""
        pinned = self.pinned(peer)
        if target in peer.stages or not self.fits(peer, pinned | {target}):
            return []
        near = [stages for stages in self.ranges(peer) if target in stages and pinned <= set(stages)]
        # Apart from the rest only if there is no range: each gap costs a hop.
        apart = [tuple(sorted({target, *rest})) for rest in (pinned, peer.stages)]
        return near or [stages for stages in apart if self.fits(peer, stages)]

    def best(self, peer: Candidate, steps: Iterable[Stages], *, share: float = 0.0) -> Stages | None:
        """Return the step after which the pipeline is fastest; of nearly equal ones, the one with fewest stages.

        Only steps count that lift the slowest stage they touch by `share` of what the peer's speed could add.
        """
        judged = []
        for stages in steps:
            after = self.after(peer, stages)
            added = peer.tokens_per_s / sum(self.needs[stage].cost for stage in stages)
            if gain(self.now, after) >= share * added:
                judged.append((sum(speed > 0 for speed in after), stages, after))
        if not judged:
            return None
        most_filled = max(filled for filled, _, _ in judged)
        enough = max(min(after) for filled, _, after in judged if filled == most_filled) / WIDER_GAIN
        near = [(stages, after) for filled, stages, after in judged if filled == most_filled and min(after) >= enough]

        def rank(step: tuple[Stages, Throughputs]) -> tuple[int, list[float], bytes]:
            stages, after = step
            slowest_first = [-round(speed / self.ideal, 3) for speed in sorted(after)]
            return len(stages), slowest_first, _lot(0, bytes(stages), 0, peer)

        return min(near, key=rank)[0]

    def after(self, peer: Candidate, new: Stages) -> Throughputs:
        """Return the throughputs if a peer without a step yet went to other stages."""
        return throughputs(self.needs, self._moved(peer, new))

    def take(self, peer: Candidate, new: Stages, kind: Kind, reason: str) -> None:
        """Put a step into the plan."""
        self.groups = self._moved(peer, new)
        self.now = throughputs(self.needs, self.groups)
        self.choices[peer.peer_id] = Choice(new, kind, reason)

    def _moved(self, peer: Candidate, new: Stages) -> dict[Stages, int]:
        groups = dict(self.groups)
        groups[peer.stages] -= peer.tokens_per_s
        groups[new] = groups.get(new, 0) + peer.tokens_per_s
        return groups


def _lot(number: int, purpose: bytes, stage: int, peer: Candidate) -> bytes:
    """Rendezvous hash: the peer with the lowest lot is drawn first."""
    return tagged_digest(
        "iota-p2p/selection/1",
        number.to_bytes(8, "big"),
        purpose,
        stage.to_bytes(2, "big"),
        peer_id_to_bytes(peer.peer_id),
    )


def _is_range(stages: Stages) -> bool:
    return stages[-1] - stages[0] == len(stages) - 1


def name_stages(stages: Stages) -> str:
    """Return stages for people: `2`, `0-3`, or `0, 2` where they are apart."""
    if len(stages) > 1 and _is_range(stages):
        return f"{stages[0]}-{stages[-1]}"
    return ", ".join(map(str, stages)) or "nothing"
