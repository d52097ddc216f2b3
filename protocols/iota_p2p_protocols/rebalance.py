"""How fast a pipeline is under an assignment of stages to peers, and what it could be at best.

A peer that holds several stages divides its speed among them, and routing sends work where there is room, so we
count with the *best* division: the one that lifts the slowest stage, then the next slowest, and so on. It is found
by water filling: each peer in turn pours its speed over its stages, lowest first, until nothing changes. A stage's
throughput is the tokens per second its holders do together; the pipeline's is that of its slowest stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iota_p2p_crypto.identity import PeerId

Stages = tuple[int, ...]  # ascending indices
Throughputs = tuple[float, ...]  # S tokens/s, one for each stage
Groups = Mapping[Stages, int]  # the speed of all peers that hold exactly these stages

MAX_SWEEPS = 12  # a long chain of overlapping ranges is cut short: its figure is then a little too low
_SETTLED = 1e-3  # of the ideal: a sweep that moves less than this ends the filling
_UNCHANGED = 2e-3  # of a stage's throughput: more than the filling's own error


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNeeds:
    """What one stage takes.

    Attributes:
        memory_bytes: weights, gradients, optimizer state and activations in flight.
        cost: time for one token relative to a stage of cost 1, on which speeds are measured; over 0.
    """

    memory_bytes: int
    cost: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A stage a peer holds or has promised to.

    Attributes:
        stage: its index.
        since_s: when the peer took it: the start of its lease.
        serving: False while the peer still fetches state and warms up.
    """

    stage: int
    since_s: float
    serving: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A live peer, as far as choosing stages goes.

    Attributes:
        peer_id: who it is.
        tokens_per_s: its measured speed on a stage of cost 1; 0 = not measured.
        memory_bytes: memory it gives to the run.
        held: its stages, ascending.
    """

    peer_id: PeerId
    tokens_per_s: int
    memory_bytes: int
    held: tuple[Held, ...] = ()

    @property
    def stages(self) -> Stages:
        """The indices of its stages."""
        return tuple(held.stage for held in self.held)


@dataclass(frozen=True, slots=True)
class SwarmView:
    """What one peer believes of the run: the needs of each stage and the live peers, itself included or not."""

    needs: tuple[StageNeeds, ...]
    peers: tuple[Candidate, ...]


def ideal_tokens_per_s(needs: Sequence[StageNeeds], peers: Sequence[Candidate]) -> float:
    """Return an upper bound for every assignment: the speed of all peers that fit any stage, spread without loss.

    It is the sum of speeds over the sum of costs. It is reached when every peer holds every stage, and may be out
    of reach when memory or indivisible peers forbid.
    """
    smallest = min(stage.memory_bytes for stage in needs)
    usable = sum(peer.tokens_per_s for peer in peers if peer.memory_bytes >= smallest)
    return usable / sum(stage.cost for stage in needs)


def throughputs(needs: Sequence[StageNeeds], groups: Groups) -> Throughputs:
    """Return each stage's throughput under the best division of every peer's speed.

    A stage without holders gets exactly 0. The result depends on the groups alone, not on how they came about.
    """
    costs = [stage.cost for stage in needs]
    levels = [0.0] * len(costs)
    shared = []
    for stages, speed in sorted(groups.items()):
        if speed and len(stages) == 1:
            levels[stages[0]] += speed / costs[stages[0]]
        elif speed and stages:
            shared.append((stages, speed, dict.fromkeys(stages, 0.0)))
    settled = _SETTLED * sum(groups.values()) / sum(costs)
    for _ in range(MAX_SWEEPS):
        if sum(_pour(levels, costs, speed, share) for _, speed, share in shared) <= settled:
            break
    return tuple(levels)


def gain(before: Throughputs, after: Throughputs) -> float:
    """Return by how many tokens/s the slowest of the stages that change becomes faster; 0 if none changes.

    Over 0 means that the sorted throughputs, slowest first, have grown in lexicographic order: whoever only makes
    such steps never comes back to where it was.
    """
    pairs = zip(before, after, strict=True)
    changed = [(old, new) for old, new in pairs if abs(new - old) > _UNCHANGED * max(old, new)]
    if not changed:
        return 0.0
    return min(new for _, new in changed) - min(old for old, _ in changed)


def _pour(levels: list[float], costs: Sequence[float], speed: int, share: dict[int, float]) -> float:
    """Take a group's shares back and pour its speed over its stages, lowest first; return the largest change."""
    rest = {stage: levels[stage] - tokens for stage, tokens in share.items()}
    volume, width, surface = float(speed), 0.0, 0.0
    for stage in sorted(rest, key=lambda stage: (rest[stage], stage)):
        # Lift the surface to this stage's level, if there is enough for that, then let this stage join.
        if width and (rest[stage] - surface) * width >= volume:
            break
        volume -= (rest[stage] - surface) * width
        surface, width = rest[stage], width + costs[stage]
    surface += volume / width
    largest = 0.0
    for stage, level in rest.items():
        poured = max(0.0, surface - level)
        largest = max(largest, abs(poured - share[stage]))
        share[stage] = poured
        levels[stage] = level + poured
    return largest
