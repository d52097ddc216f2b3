"""Which stages a peer holds, decided by itself from what it believes (spec: protocols/spec/selection.md).

Theory of operation. Time is cut into rounds. From a view and a round number follows one plan, the same for whoever
makes it; a peer carries out its own line of the plan and no other. A plan is made in this order:

1. *Arrivals*: peers that hold nothing take what helps the slowest stage most.
2. *Emergencies*: for each stage without a holder, one peer drawn by lot takes it, lease or not.
3. *Moves*: if the pipeline is far from the ideal, a drawn peer goes to the slowest stage if that is a clear gain.
4. *Hand-overs*: otherwise drawn peers with several stages drop those that others serve well enough.

Why it comes to rest: a move needs a `gain` over 0, so it raises the sorted throughputs; moves happen only below
`MOVE_BELOW` of the ideal; a hand-over either lowers nothing, or ends above `HAND_OVER_ABOVE`, which is higher. So below
that level throughput only grows, above it only the number of held stages shrinks, and neither can go on for ever.

Why no stage is emptied: a peer leaves a stage only if another one *serves* it, and of the peers serving a stage one,
its anchor of the round, does not leave it. Peers whose views disagree may still do so; that is an emergency.
"""

from collections.abc import Mapping, Sequence
from statistics import median_low

from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.rebalance import Candidate, Held, StageNeeds, Stages, SwarmView
from iota_p2p_protocols.selection_plan import Choice, RoundPlan, name_stages

PROMISE_S = 600  # a peer that has not come to serve a stage by then does not count as its holder
MAX_SPEED_RATIO = 30  # to the median: a peer that boasts of more would starve the stages it holds


def choose_stages(view: SwarmView, me: Candidate, now_s: float) -> Choice:
    """Return the stages to hold. Deterministic; what we know of ourselves replaces what the view says of us."""
    fitting = _fitting(view.needs, me)
    if fitting != me.stages:
        return Choice(fitting, "shrink", f"keep {name_stages(fitting)}: no more fits in {me.memory_bytes:,} bytes")
    others = tuple(peer for peer in view.peers if peer.peer_id != me.peer_id)
    step = plan_round(SwarmView(view.needs, (*others, me)), now_s).get(me.peer_id)
    return step or Choice(
        me.stages, "keep", f"keep {name_stages(me.stages)}: no better step, or not ours to take this round"
    )


def plan_round(view: SwarmView, now_s: float) -> dict[PeerId, Choice]:
    """Return the steps that everybody with this view expects of this round, by peer. Others keep what they hold."""
    if not view.needs or not view.peers:
        return {}
    plan = RoundPlan.of(view.needs, _bounded(view, now_s), now_s)
    plan.place_arrivals()
    plan.fill_empty_stages()
    if not plan.move_some():
        plan.hand_over()
    return plan.choices


def candidate_of(peer_id: PeerId, advert: Advert, since_s: Mapping[int, float]) -> Candidate:
    """Return a peer as its advert shows it; `since_s` is when we first saw it offer each stage, by our clock.

    An offer of 0 tokens/s is a promise: the stage is being fetched and not served yet.
    """
    held = (
        Held(stage=offer.stage, since_s=since_s[offer.stage], serving=offer.tokens_per_s > 0) for offer in advert.stages
    )
    capacity = advert.capacity
    return Candidate(
        peer_id=peer_id, tokens_per_s=capacity.tokens_per_s, memory_bytes=capacity.memory_bytes, held=tuple(held)
    )


def _bounded(view: SwarmView, now_s: float) -> tuple[Candidate, ...]:
    """Return the peers with speeds that no boast can blow up, and without stages long promised or unknown."""
    most = max(1, median_low(peer.tokens_per_s for peer in view.peers)) * MAX_SPEED_RATIO
    return tuple(
        Candidate(
            peer_id=peer.peer_id,
            tokens_per_s=min(max(1, peer.tokens_per_s), most),
            memory_bytes=peer.memory_bytes,
            held=tuple(
                held
                for held in peer.held
                if held.stage < len(view.needs) and (held.serving or now_s - held.since_s < PROMISE_S)
            ),
        )
        for peer in sorted(view.peers, key=lambda peer: peer.peer_id)
    )


def _fitting(needs: Sequence[StageNeeds], peer: Candidate) -> Stages:
    """Return as many of a peer's stages, lowest first, as it has memory for."""
    kept, room = [], peer.memory_bytes
    for stage in peer.stages:
        if stage < len(needs) and needs[stage].memory_bytes <= room:
            kept.append(stage)
            room -= needs[stage].memory_bytes
    return tuple(kept)
