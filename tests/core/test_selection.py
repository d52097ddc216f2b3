from hashlib import sha256
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota_p2p_crypto.identity import peer_id_of
from iota_p2p_protocols.rebalance import (
    Candidate,
    Held,
    StageNeeds,
    SwarmView,
    gain,
    ideal_tokens_per_s,
    throughputs,
)
from iota_p2p_protocols.selection import PROMISE_S, choose_stages, plan_round
from iota_p2p_protocols.selection_plan import LEASE_S, ROUND_S

IDS = [peer_id_of(sha256(bytes((i,))).digest()) for i in range(64)]
NOW_S = 10_000.0


def needs_of(*costs: float) -> tuple[StageNeeds, ...]:
    return tuple(StageNeeds(memory_bytes=10, cost=cost) for cost in costs)


def peer(
    index: int,
    stages: tuple[int, ...] = (),
    *,
    speed: int = 100,
    room: int = 4,
    since_s: float = 0,
    serving: bool = True,
) -> Candidate:
    held = tuple(Held(stage=stage, since_s=since_s, serving=serving) for stage in stages)
    return Candidate(peer_id=IDS[index], tokens_per_s=speed, memory_bytes=10 * room, held=held)


@st.composite
def views(draw: st.DrawFn) -> SwarmView:
    """A swarm in any state, speeds over a 10x range, head and tail dearer."""
    num_stages = draw(st.integers(1, 5))
    needs = needs_of(*draw(st.lists(st.sampled_from([1.0, 1.3, 2.0]), min_size=num_stages, max_size=num_stages)))
    peers = []
    for index in range(draw(st.integers(1, 10))):
        room = draw(st.integers(0, num_stages))
        stages = tuple(sorted(draw(st.sets(st.integers(0, num_stages - 1), max_size=room))))
        since_s = draw(st.sampled_from([0.0, NOW_S - LEASE_S / 2]))
        speed = draw(st.integers(100, 1000))
        serving = draw(st.booleans())
        peers.append(peer(index, stages, speed=speed, room=room, since_s=since_s, serving=serving))
    return SwarmView(needs, tuple(peers))


def served(view: SwarmView) -> set[int]:
    return {held.stage for candidate in view.peers for held in candidate.held if held.serving}


def decide(view: SwarmView, now_s: float) -> SwarmView:
    """Let every peer decide on this view at once; what is new serves at once, so that lease and gain alone hold."""
    after = []
    for me in view.peers:
        since = {held.stage: held.since_s for held in me.held}
        stages = choose_stages(view, me, now_s).stages
        held = tuple(Held(stage=stage, since_s=since.get(stage, now_s)) for stage in stages)
        after.append(
            Candidate(peer_id=me.peer_id, tokens_per_s=me.tokens_per_s, memory_bytes=me.memory_bytes, held=held)
        )
    return SwarmView(view.needs, tuple(after))


def speed_of(view: SwarmView) -> float:
    groups: dict[tuple[int, ...], int] = {}
    for candidate in view.peers:
        groups[candidate.stages] = groups.get(candidate.stages, 0) + candidate.tokens_per_s
    return min(throughputs(view.needs, groups))


@given(views())
@settings(max_examples=50)
def test_choice__fits_in_memory_always(view: SwarmView) -> None:
    for me in view.peers:
        choice = choose_stages(view, me, NOW_S)
        assert sum(view.needs[stage].memory_bytes for stage in choice.stages) <= me.memory_bytes
        assert choice.reason


@given(views())
def test_choice__empties_no_stage_when_all_decide_at_once(view: SwarmView) -> None:
    kept: set[int] = set()
    for me in view.peers:
        kept |= {held.stage for held in me.held if held.serving} & set(choose_stages(view, me, NOW_S).stages)
    assert kept == served(view)


@given(views(), st.randoms())
def test_choice__does_not_depend_on_the_order_of_the_view(view: SwarmView, rng: object) -> None:
    shuffled = list(view.peers)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' Random
    assert plan_round(SwarmView(view.needs, tuple(shuffled)), NOW_S) == plan_round(view, NOW_S)


@given(views())
@settings(max_examples=8)
def test_swarm__comes_to_rest_and_stays(view: SwarmView) -> None:
    """From any state, with all deciding in every round, nobody moves any more in the end."""
    now_s, quiet = NOW_S, 0
    for _ in range(600):
        after = decide(view, now_s)
        quiet = quiet + 1 if after == view else 0
        view, now_s = after, now_s + max(ROUND_S, LEASE_S)
        if quiet == 20:
            return
    pytest.fail("still moving after 600 rounds")


@given(views())
@settings(max_examples=8)
def test_thousand_decisions__take_no_peer_to_and_fro(view: SwarmView) -> None:
    """From any state: nobody goes from one set of stages to another and back twice, and the last 500 change nothing."""
    held: dict[str, list[tuple[int, ...]]] = {me.peer_id: [me.stages] for me in view.peers}
    now_s, decisions, last_change = NOW_S, 0, 0
    while decisions < 1000:
        view = decide(view, now_s)
        now_s += LEASE_S
        decisions += len(view.peers)
        for me in view.peers:
            if me.stages != held[me.peer_id][-1]:
                held[me.peer_id].append(me.stages)
                last_change = decisions
    assert last_change <= 500
    for sets in held.values():
        there_and_back = zip(sets, sets[1:], sets[2:], sets[3:], strict=False)
        assert not any(first == third and second == fourth for first, second, third, fourth in there_and_back)


@given(views())
def test_move__raises_the_slowest_stage_it_touches(view: SwarmView) -> None:
    steps = {name: choice for name, choice in plan_round(view, NOW_S).items() if choice.kind == "move"}
    for me in view.peers:
        if me.peer_id in steps:
            assert all(NOW_S - held.since_s >= LEASE_S for held in me.held)
    if (
        steps
        and len(steps) == len(plan_round(view, NOW_S))
        and all(held.serving for p in view.peers for held in p.held)
    ):
        moved = [
            Candidate(
                peer_id=p.peer_id,
                tokens_per_s=p.tokens_per_s,
                memory_bytes=p.memory_bytes,
                held=tuple(Held(stage=s, since_s=0) for s in steps[p.peer_id].stages) if p.peer_id in steps else p.held,
            )
            for p in view.peers
        ]
        assert speed_of(SwarmView(view.needs, tuple(moved))) >= speed_of(view) * 0.99


def test_lone_peer__holds_all_that_fits() -> None:
    needs = needs_of(1, 1, 1, 1)
    assert choose_stages(SwarmView(needs, ()), peer(0), NOW_S).stages == (0, 1, 2, 3)
    assert len(choose_stages(SwarmView(needs, ()), peer(0, room=3), NOW_S).stages) == 3
    assert choose_stages(SwarmView(needs, ()), peer(0, room=0), NOW_S).stages == ()


def test_lone_peer__hands_over_only_what_the_newcomer_serves() -> None:
    """The newcomer takes half; the old peer keeps all until the newcomer serves, then drops just that half."""
    needs = needs_of(1, 1, 1, 1)
    old = peer(0, (0, 1, 2, 3))
    half = choose_stages(SwarmView(needs, (old,)), peer(1), NOW_S).stages
    assert len(half) == 2
    loading = SwarmView(needs, (old, peer(1, half, since_s=NOW_S, serving=False)))
    assert choose_stages(loading, old, NOW_S).stages == (0, 1, 2, 3)
    ready = SwarmView(needs, (old, peer(1, half)))
    assert set(choose_stages(ready, old, NOW_S).stages) == {0, 1, 2, 3} - set(half)


def test_empty_stage__is_taken_by_exactly_one_despite_leases() -> None:
    needs = needs_of(1, 1)
    view = SwarmView(needs, tuple(peer(i, (0,), room=1, since_s=NOW_S) for i in range(8)))
    choices = [choose_stages(view, me, NOW_S) for me in view.peers]
    assert [choice.stages for choice in choices].count((1,)) == 1
    assert sum(choice.kind == "take" for choice in choices) == 1


def test_empty_stage__is_drawn_anew_in_the_next_round() -> None:
    """If the drawn peer is dead, another one acts 10 s later."""
    view = SwarmView(needs_of(1, 1), tuple(peer(i, (0,), room=1) for i in range(8)))
    assert len({tuple(plan_round(view, NOW_S + ROUND_S * i)) for i in range(12)}) > 3


def test_promise__counts_until_it_lapses() -> None:
    needs = needs_of(1, 1)
    view = SwarmView(needs, (peer(0, (0,), room=2), peer(1, (1,), room=1, since_s=NOW_S, serving=False)))
    assert not plan_round(view, NOW_S + 1)
    assert plan_round(view, NOW_S + PROMISE_S)[IDS[1]].kind == "join"


def test_boast__does_not_starve_a_stage() -> None:
    """A peer that claims 2^60 tokens/s does not make its stage look served for good."""
    view = SwarmView(needs_of(1, 1), (peer(0, (0,), speed=2**60), *(peer(i, (1,)) for i in range(1, 5))))
    assert ideal_tokens_per_s(view.needs, view.peers) > 2**58
    assert choose_stages(view, peer(9, room=1), NOW_S).stages in {(0,), (1,)}
    assert all(choice.kind == "move" for choice in plan_round(view, NOW_S).values())


def test_move__waits_for_the_lease() -> None:
    needs = needs_of(1, 1)
    young = SwarmView(needs, tuple(peer(i, (0,) if i else (1,), room=1, since_s=NOW_S) for i in range(6)))
    assert not plan_round(young, NOW_S + LEASE_S - 1)
    assert len(plan_round(young, NOW_S + LEASE_S)) == 1


def test_move__refused_without_gain() -> None:
    """Three equal peers on two stages: whoever moves only swaps the slow stage for the other."""
    view = SwarmView(needs_of(1, 1), (peer(0, (0,), room=1), peer(1, (1,), room=1), peer(2, (1,), room=1)))
    assert all(not plan_round(view, NOW_S + ROUND_S * i) for i in range(10))


def test_dear_stages__get_more_peers() -> None:
    view = SwarmView(needs_of(1, 1, 2), tuple(peer(i, room=1) for i in range(12)))
    for round_number in range(40):
        view = decide(view, NOW_S + round_number * LEASE_S)
    assert [sum(stage in p.stages for p in view.peers) for stage in range(3)] == [3, 3, 6]


def test_throughputs__match_the_best_division_by_hand() -> None:
    """A peer of 10 on both stages fills up the slower one: 2 + 9 and 10 + 1."""
    assert throughputs(needs_of(1, 1), {(0,): 2, (1,): 10, (0, 1): 10}) == pytest.approx((11, 11))
    assert throughputs(needs_of(1, 2), {(0, 1): 30}) == pytest.approx((10, 10))
    assert throughputs(needs_of(1, 1), {(0,): 5}) == (5, 0)
    assert gain((4, 4, 12), (8, 4, 8)) == 4
    assert gain((4, 4), (4, 4)) == 0


@pytest.mark.parametrize("seed", range(8))
def test_swarm__reaches_nearly_the_best_assignment_of_a_small_case(seed: int) -> None:
    """Seven peers with memory for one stage each, speeds over a 10x range, against all 3^7 assignments."""
    needs = needs_of(1, 1, 1.5)
    speeds = [100 + int.from_bytes(sha256(bytes((seed, i))).digest()[:2], "big") % 900 for i in range(7)]
    view = SwarmView(needs, tuple(peer(i, room=1, speed=speed) for i, speed in enumerate(speeds)))
    for round_number in range(60):
        view = decide(view, NOW_S + round_number * LEASE_S)
    best = max(
        min(sum(v for v, s in zip(speeds, where, strict=True) if s == stage) / needs[stage].cost for stage in range(3))
        for where in product(range(3), repeat=7)
    )
    assert speed_of(view) >= 0.8 * best
