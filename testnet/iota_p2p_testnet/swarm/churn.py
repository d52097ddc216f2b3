"""Self-selection of stages under churn: hundreds of peers that come, go and decide for themselves.

Every peer runs the real `choose_stages` on its own view of the swarm, which may be a round old, on speeds that
waver, without any coordinator. Only the network and the training are left out. A peer that takes a stage serves it
after `load_s`. Until then it serves what it leaves if it has the memory for both, else it stops at once. Who dies
takes everything along.

The figure is the pipeline's throughput from the stages really served, over `ideal_tokens_per_s` of all peers alive:
an upper bound that no assignment can beat, so the figures are lower than against the true optimum.
"""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from hashlib import sha256
from statistics import fmean

from iota_p2p_crypto.identity import PeerId, peer_id_of
from iota_p2p_protocols.rebalance import Candidate, Held, StageNeeds, SwarmView, ideal_tokens_per_s, throughputs
from iota_p2p_protocols.selection import choose_stages, plan_round
from iota_p2p_protocols.selection_plan import ROUND_S, Kind

STAGE_BYTES = 10**9
WAVER_S = 300  # how long a peer's measured speed stays off by the same amount

ALL_RULES: frozenset[Kind] = frozenset({"join", "take", "move", "hand-over"})
NO_REBALANCING: frozenset[Kind] = frozenset({"join"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChurnSetting:
    """One simulated swarm.

    Attributes:
        num_peers: how many are there on average, and at the start.
        costs: relative cost of each stage.
        lifetime_s: mean life of a peer, exponentially distributed; 0 = nobody comes or goes.
        seed: of everything random.
        rules: the kinds of steps peers carry out.
        duration_s: simulated time after the warm-up.
        warm_up_s: simulated time that is not measured, in which the first peers settle.
        speed_ratio: fastest over slowest peer; speeds are log-uniform.
        most_stages: a peer has the memory for 1 to this many stages, uniformly.
        load_s: from taking a stage to serving it.
        waver: measured speeds are off by up to this share.
        max_lag: rounds by which a peer's view may be old, uniformly; a round is several times what gossip takes.
    """

    num_peers: int
    costs: tuple[float, ...]
    lifetime_s: float
    seed: int = 0
    rules: frozenset[Kind] = ALL_RULES
    duration_s: float = 4 * 3600
    warm_up_s: float = 1800
    speed_ratio: float = 10
    most_stages: int = 4
    load_s: float = 30
    waver: float = 0.05
    max_lag: int = 1


@dataclass(frozen=True, slots=True)
class ChurnResult:
    """What came of it.

    Attributes:
        of_ideal: mean of the pipeline's throughput over the ideal.
        worst_of_ideal: the lowest 5-minute mean.
        stalled: share of the time in which some stage was served by nobody.
        steps_per_hour: takes and moves per peer and hour: what costs downloads. Joins are not counted.
        stages_per_peer: mean at the end.
    """

    of_ideal: float
    worst_of_ideal: float
    stalled: float
    steps_per_hour: float
    stages_per_peer: float


@dataclass(slots=True)
class _Peer:
    """A simulated peer; `held` maps each stage to when it was taken, `left` those still served to when that ends."""

    peer_id: PeerId
    tokens_per_s: int
    memory_bytes: int
    lag: int
    held: dict[int, float] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)


class ChurnSwarm:
    """The simulated swarm, one round at a time."""

    def __init__(self, setting: ChurnSetting) -> None:
        self.setting = setting
        self.needs = tuple(StageNeeds(memory_bytes=STAGE_BYTES, cost=cost) for cost in setting.costs)
        self.now_s = 0.0
        self.steps: deque[tuple[float, Kind]] = deque()
        self._rng = random.Random(setting.seed)  # noqa: S311 - a simulation, repeatable by seed
        self._next_id = 0
        self.peers: dict[PeerId, _Peer] = {}
        for _ in range(setting.num_peers):
            self.add_peer()
        self._views: deque[SwarmView] = deque(maxlen=setting.max_lag + 1)  # newest first

    def add_peer(self) -> PeerId:
        """Let a peer arrive that holds nothing; return its id."""
        setting, rng = self.setting, self._rng
        self._next_id += 1
        peer_id = peer_id_of(sha256(f"{setting.seed}/{self._next_id}".encode()).digest())
        speed = round(1000 * setting.speed_ratio ** rng.random())
        memory_bytes = STAGE_BYTES * rng.randint(1, setting.most_stages)
        self.peers[peer_id] = _Peer(peer_id, speed, memory_bytes, rng.randint(0, setting.max_lag))
        return peer_id

    def step(self) -> float:
        """Simulate one round; return the pipeline's throughput over the ideal before anybody acts in it."""
        self._come_and_go()
        self._views.appendleft(SwarmView(self.needs, tuple(self._candidate(peer) for peer in self.peers.values())))
        served = self._of_ideal()
        for peer, stages in self._decide():
            left = [stage for stage in peer.held if stage not in stages]
            both = len(left) + len(stages) <= peer.memory_bytes // STAGE_BYTES and not set(stages) <= set(peer.held)
            peer.left = dict.fromkeys(left, self.now_s + self.setting.load_s) if both else {}
            peer.held = {stage: peer.held.get(stage, self.now_s) for stage in stages}
        self.now_s += ROUND_S
        return served

    def _come_and_go(self) -> None:
        if not self.setting.lifetime_s:
            return
        chance = ROUND_S / self.setting.lifetime_s
        for peer_id in list(self.peers):
            if self._rng.random() < chance:
                del self.peers[peer_id]
        arrivals = sum(self._rng.random() < chance for _ in range(self.setting.num_peers))
        for _ in range(max(arrivals, 0 if self.peers else 1)):
            self.add_peer()

    def _decide(self) -> list[tuple[_Peer, tuple[int, ...]]]:
        """Return who goes where, each deciding from its own view and without seeing the others decide."""
        decided: list[tuple[_Peer, tuple[int, ...]]] = []
        for lag, view in enumerate(self._views):
            # Only peers that the common plan names, or that are too new to be in it, can have anything to do.
            may_act = self.setting.rules > NO_REBALANCING or any(not peer.held for peer in view.peers)
            named = plan_round(view, self.now_s) if may_act else {}
            for peer in self.peers.values():
                if min(peer.lag, len(self._views) - 1) != lag or (peer.held and peer.peer_id not in named):
                    continue
                me = self._candidate(peer)
                # Whoever finds itself in the view as it is comes to the common plan.
                choice = named.get(peer.peer_id) if me in view.peers else choose_stages(view, me, self.now_s)
                if choice and choice.kind in self.setting.rules:
                    self.steps.append((self.now_s, choice.kind))
                    decided.append((peer, choice.stages))
        return decided

    def _candidate(self, peer: _Peer) -> Candidate:
        """Return a peer as its advert shows it now."""
        setting = self.setting
        noise = random.Random(f"{peer.peer_id}/{self.now_s // WAVER_S}").uniform(-1, 1)  # noqa: S311 - a simulation
        return Candidate(
            peer_id=peer.peer_id,
            tokens_per_s=round(peer.tokens_per_s * (1 + setting.waver * noise)),
            memory_bytes=peer.memory_bytes,
            held=tuple(
                Held(stage=stage, since_s=since_s, serving=self.now_s - since_s >= setting.load_s)
                for stage, since_s in sorted(peer.held.items())
            ),
        )

    def _of_ideal(self) -> float:
        groups: dict[tuple[int, ...], int] = {}
        exact = []
        for candidate in self._views[0].peers:
            peer = self.peers[candidate.peer_id]
            exact.append(replace(candidate, tokens_per_s=peer.tokens_per_s))
            serving = {held.stage for held in candidate.held if held.serving}
            leaving = {stage for stage, until_s in peer.left.items() if self.now_s < until_s}
            served = tuple(sorted(serving | leaving))
            groups[served] = groups.get(served, 0) + peer.tokens_per_s
        return min(throughputs(self.needs, groups)) / ideal_tokens_per_s(self.needs, exact)


def simulate_churn(setting: ChurnSetting) -> ChurnResult:
    """Run one swarm and sum it up."""
    swarm = ChurnSwarm(setting)
    while swarm.now_s < setting.warm_up_s:
        swarm.step()
    swarm.steps.clear()
    figures = [swarm.step() for _ in range(int(setting.duration_s / ROUND_S))]
    window = int(300 / ROUND_S)
    windows = [fmean(figures[start : start + window]) for start in range(0, len(figures), window)]
    costly = sum(kind in {"take", "move"} for _, kind in swarm.steps)
    return ChurnResult(
        of_ideal=fmean(figures),
        worst_of_ideal=min(windows),
        stalled=fmean(figure == 0 for figure in figures),
        steps_per_hour=costly / setting.num_peers / (setting.duration_s / 3600),
        stages_per_peer=fmean(len(peer.held) for peer in swarm.peers.values()),
    )
