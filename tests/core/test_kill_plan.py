"""`--kill`: what is written is what is planned, and a plan keeps to its rules whatever happens to the peers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.errors import UserError
from iota_p2p_testnet.kill_plan import KillPlan, KillRule, parse_kill

NUM_PEERS = 8
SECONDS = st.integers(1, 10_000).map(lambda tenths: tenths / 10)
RULES = st.builds(
    lambda peer, count, at_s, every_s, back_s: KillRule(peer, 1 if peer else count, at_s, every_s, back_s),
    st.none() | st.integers(1, NUM_PEERS),
    st.integers(1, NUM_PEERS),
    SECONDS,
    st.none() | SECONDS.map(lambda value: value + 1),
    st.none() | SECONDS,
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("random@20s", KillRule(None, 1, 20, None, None)),
        ("3@10s+5s", KillRule(3, 1, 10, None, 5)),
        ("random:2@30s/20s", KillRule(None, 2, 30, 20, None)),
        ("random:2@30s/20s+8.5s", KillRule(None, 2, 30, 20, 8.5)),
        ("8@0s", KillRule(8, 1, 0, None, None)),
    ],
)
def test_parse_kill__understands_the_documented_forms(text: str, rule: KillRule) -> None:
    assert parse_kill(text, NUM_PEERS) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "3@10",
        "@10s",
        "0@10s",
        "random:0@1s",
        "3:2@10s",
        "3@-1s",
        "3@10s+",
        "3@10s+5s/5s",
        "3@10s ",
        "3@1e3s",
        "٣@10s",
    ],
)
def test_parse_kill__refuses_anything_else_and_shows_what_to_write(text: str) -> None:
    with pytest.raises(UserError, match="random@20s"):
        parse_kill(text, NUM_PEERS)


@pytest.mark.parametrize("text", ["9@10s", "random:9@10s", "random@10s/0.5s"])
def test_parse_kill__refuses_what_cannot_be_done(text: str) -> None:
    with pytest.raises(UserError, match="--kill"):
        parse_kill(text, NUM_PEERS)


@given(RULES)
def test_parse_kill__reads_back_every_rule(rule: KillRule) -> None:
    assert parse_kill(str(rule), NUM_PEERS) == rule


@given(
    rules=st.lists(RULES, max_size=4),
    steps=st.lists(st.tuples(st.floats(0, 500), st.sets(st.integers(1, NUM_PEERS))), max_size=20),
    seed=st.integers(0, 9),
)
def test_due__names_live_peers_once_and_draws_the_same_again(
    rules: list[KillRule], steps: list[tuple[float, set[int]]], seed: int
) -> None:
    plan, again = KillPlan(rules, seed), KillPlan(rules, seed)
    named = {rule.peer for rule in rules}
    for now_s, alive in sorted(steps, key=lambda step: step[0]):
        kills = plan.due(now_s, alive)
        peers = [kill.peer for kill in kills]
        assert len(set(peers)) == len(peers)
        assert set(peers) <= alive
        if alive and alive <= set(peers):  # nobody left: only because one was named
            assert named & alive
        assert again.due(now_s, sorted(alive, reverse=True)) == kills
        assert plan.next_s is None or plan.next_s > now_s


@given(RULES, st.integers(0, 9))
def test_due__kills_in_every_round_as_told_when_asked_in_time(rule: KillRule, seed: int) -> None:
    plan = KillPlan([rule], seed)
    alive = set(range(1, NUM_PEERS + 1))
    times = []
    for _ in range(4):
        if (now_s := plan.next_s) is None:
            break
        kills = plan.due(now_s, alive)
        times.append(now_s)
        assert len(kills) == min(rule.count, NUM_PEERS - 1)
        assert {kill.back_s for kill in kills} == {rule.back_s}
    expected = [rule.at_s] if rule.every_s is None else [rule.at_s + number * rule.every_s for number in range(4)]
    assert times == pytest.approx(expected)


def test_due__skips_rounds_that_were_missed() -> None:
    plan = KillPlan([parse_kill("3@10s/10s", NUM_PEERS)], seed=0)
    assert plan.due(9.9, [3]) == ()
    assert len(plan.due(35, [3])) == 1
    assert plan.next_s == 40


def test_due__draws_others_with_another_seed() -> None:
    rule = parse_kill("random:3@1s", NUM_PEERS)
    drawn = {tuple(kill.peer for kill in KillPlan([rule], seed).due(1, range(1, 9))) for seed in range(20)}
    assert len(drawn) > 1


def test_stage__is_killed_with_all_its_holders_but_never_with_everybody() -> None:
    plan = KillPlan([parse_kill("stage:1@5s", 4), parse_kill("stage:0@6s", 4)], seed=0)
    holders = {0: [2, 3, 4], 1: [1, 3]}
    assert [kill.peer for kill in plan.due(5, [1, 2, 3, 4], holders)] == [1, 3]
    assert [kill.peer for kill in plan.due(6, [2, 4], holders)] == [4]
    assert str(parse_kill("stage:1@5s", 4)) == "stage:1@5s"
