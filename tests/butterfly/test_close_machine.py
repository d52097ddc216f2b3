"""Epochs turn over by what sources say, whoever missed it, and whoever boasts."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_to_bytes
from iota_p2p_protocols.close_machine import (
    LOOK_EVERY_S,
    MAX_BOAST,
    RULES,
    Closed,
    CloseRules,
    Closing,
    Live,
    Progressed,
    Publish,
    Tick,
    TurnOver,
    microbatches_done,
    step,
)
from iota_p2p_protocols.epoch_close import (
    MAX_EVIDENCE,
    MAX_PROGRESS_BYTES,
    Close,
    EpochClose,
    open_epoch_close,
    validate_epoch_close,
)
from iota_p2p_protocols.errors import IgnoreError, RejectError
from iota_p2p_protocols.ids import EPOCHS
from iota_p2p_protocols.message import UINT63_MAX, seal_message
from iota_p2p_protocols.progress import MAX_MICROBATCHES, MAX_TOKENS
from tests.butterfly.rosters import progress
from tests.core.members import NOW_S, OTHER_RUN, PEERS, RUN

TARGET, DEADLINE_S = 100, 60.0
CLOSE_RULES = CloseRules(RUN, TARGET, DEADLINE_S)
FIVE = PEERS[:5]


def ids(peers: Sequence[Identity]) -> frozenset[PeerId]:
    return frozenset(peer.peer_id for peer in peers)


def beginning(me: Identity = FIVE[0], epoch: int = 3, sources: Sequence[Identity] = FIVE) -> Closing:
    return Closing(me.peer_id, CLOSE_RULES, epoch, NOW_S, ids(sources))


def after(closing: Closing, *events: Any, now_s: float = NOW_S + 1) -> tuple[Closing, list[Any]]:
    effects: list[Any] = []
    for event in events:
        closing, more = step(closing, event, now_s)
        effects += more
    return closing, effects


def heard(*counts: int, epoch: int = 3) -> list[Progressed]:
    return [Progressed(progress(peer, count, epoch)) for peer, count in zip(FIVE, counts, strict=False)]


def close_by(me: Identity, *counts: int, epoch: int = 3) -> Close:
    """Return the close that a peer publishes when it has seen these counts."""
    closing, effects = after(beginning(me, epoch), *heard(*counts, epoch=epoch), Tick())
    assert effects
    _, effects = after(closing, Tick(), now_s=NOW_S + 10)
    published = next(effect for effect in effects if isinstance(effect, Publish))
    return open_epoch_close(seal_message(published.close, me))


def test_epoch__is_over_at_its_target_and_not_before() -> None:
    _, effects = after(beginning(), *heard(20, 20, 20, 20, 19), Tick())
    assert effects == []
    closing, effects = after(beginning(), *heard(20, 20, 20, 20, 20), Tick())
    assert effects == [TurnOver(4, "100 of 100 microbatches")]
    assert (closing.epoch, closing.began_s) == (4, NOW_S + 1)


def test_epoch__is_over_at_its_deadline_if_anything_was_done() -> None:
    assert after(beginning(), Tick(), now_s=NOW_S + DEADLINE_S)[1] == []
    _, effects = after(beginning(), *heard(1), Tick(), now_s=NOW_S + DEADLINE_S)
    assert effects == [TurnOver(4, "deadline of 60 s")]


def test_boast__counts_for_little() -> None:
    closing, effects = after(beginning(), *heard(5, 5, 5, 5, 10_000), Tick())
    assert effects == []
    assert microbatches_done(closing) == 20 + MAX_BOAST * 6


def test_lone_source__is_believed() -> None:
    _, effects = after(beginning(sources=FIVE[:1]), *heard(100), Tick())
    assert effects == [TurnOver(4, "100 of 100 microbatches")]


def test_progress__counts_once_whatever_its_order_and_only_of_live_sources() -> None:
    newer, older = Progressed(progress(FIVE[0], 30)), Progressed(progress(FIVE[0], 20))
    for order in ((newer, older), (older, newer), (newer, newer)):
        assert microbatches_done(after(beginning(sources=FIVE[:1]), *order)[0]) == 30
    assert microbatches_done(after(beginning(sources=FIVE[1:]), newer)[0]) == 0
    for foreign in (progress(FIVE[0], 30, stage=1), progress(FIVE[0], 30, run_id=OTHER_RUN), progress(FIVE[0], 30, 5)):
        assert microbatches_done(after(beginning(), Progressed(foreign))[0]) == 0


def test_one_close__is_published_although_all_see_the_end() -> None:
    closings = [after(beginning(peer), *heard(20, 20, 20, 20, 20), Tick())[0] for peer in FIVE]
    published = []
    for turn in range(20):
        now_s = NOW_S + 1 + turn * LOOK_EVERY_S
        for number, peer in enumerate(FIVE):
            closings[number], effects = after(closings[number], Tick(), now_s=now_s)
            for effect in effects:
                assert isinstance(effect, Publish)
                published.append(open_epoch_close(seal_message(effect.close, peer)))
                closings = [after(one, Closed(published[-1]), now_s=now_s)[0] for one in closings]
    assert [close.epoch for close in published] == [3]
    assert len(published[0].evidence) == 5


def test_close__convinces_whoever_missed_the_progress_by_what_it_holds() -> None:
    close = close_by(FIVE[1], 20, 20, 20, 20, 20)
    closing, effects = after(beginning(), Closed(close))
    assert effects == [TurnOver(4, "100 of 100 microbatches")]
    assert after(closing, Closed(close))[1] == []  # once


def test_close__convinces_nobody_when_its_evidence_is_not_enough() -> None:
    evidence = tuple(
        progress(peer, 9).envelope_bytes for peer in sorted(FIVE, key=lambda one: peer_id_to_bytes(one.peer_id))
    )
    liar = EpochClose(
        run_id=RUN, sequence=3, issued_s=NOW_S, expires_s=NOW_S + 60, epoch=3, reason="target", evidence=evidence
    )
    assert after(beginning(), Closed(open_epoch_close(seal_message(liar, FIVE[1]))))[1] == []
    early = liar.model_copy(update={"reason": "deadline"})
    close = open_epoch_close(seal_message(early, FIVE[1]))
    assert after(beginning(), Closed(close), now_s=NOW_S + 0.79 * DEADLINE_S)[1] == []
    assert after(beginning(), Closed(close), now_s=NOW_S + 0.81 * DEADLINE_S)[1] == [TurnOver(4, "somebody's deadline")]


def test_whoever_is_epochs_behind__goes_where_more_than_half_are() -> None:
    far = [Progressed(progress(peer, 1, epoch)) for peer, epoch in zip(FIVE, (9, 8, 7, 3, 3), strict=True)]
    _, effects = after(beginning(), *far, Tick())
    assert effects == [TurnOver(7, "more than half of the sources are ahead")]
    assert after(beginning(), *far[:2], *far[3:], Tick())[1] == []
    gone = Live(ids(FIVE[:2]))  # those who are gone no longer hold it back
    assert after(beginning(), *far, gone)[1] == [TurnOver(8, "more than half of the sources are ahead")]


@given(st.permutations(range(5)), st.lists(st.integers(0, 60), min_size=5, max_size=5), st.data())
def test_peers__that_heard_the_same_in_any_order_count_the_same(order: list[int], counts: list[int], data: Any) -> None:
    events = heard(*counts)
    twice = data.draw(st.lists(st.sampled_from(events)))
    straight, _ = after(beginning(), *events)
    mixed, _ = after(beginning(), *(events[index] for index in order), *twice)
    assert microbatches_done(straight) == microbatches_done(mixed)


def gossip(close: EpochClose, *, epoch: int = 3) -> Close:
    data = seal_message(close, FIVE[1])
    return validate_epoch_close(data, FIVE[1].peer_id, run_id=RUN, epoch=epoch, now_s=NOW_S + 10)


def test_close_gossip__ignored_when_it_is_no_news_and_rejected_when_it_breaks_a_rule() -> None:
    good = close_by(FIVE[1], 20, 20, 20, 20, 20).verified.payload
    assert gossip(good).epoch == 3
    with pytest.raises(IgnoreError) as ignored:
        gossip(good, epoch=4)
    assert ignored.value.rule == "close-epoch"
    others = [progress(FIVE[0], 5, epoch=4), progress(FIVE[0], 5, stage=1), progress(FIVE[0], 5, run_id=OTHER_RUN)]
    wrong = [(one.envelope_bytes,) for one in others]
    for evidence, rule in [
        *((one, "close-evidence") for one in wrong),
        (good.evidence[::-1], "close-order"),
        (good.evidence[:1] * 2, "close-order"),
        ((b"no envelope",), "canonical-trailing"),
    ]:
        with pytest.raises(RejectError) as rejected:
            gossip(good.model_copy(update={"evidence": evidence}))
        assert rejected.value.rule == rule


def test_largest_close__fits_its_bounds() -> None:
    crowd = [Identity.from_seed(digest(bytes([number]))) for number in range(MAX_EVIDENCE + 9)]
    most = {"epoch": UINT63_MAX - 1, "num_microbatches": MAX_MICROBATCHES, "num_tokens": MAX_TOKENS}
    rows = [progress(peer, 7, **most, loss_sum_micronats=UINT63_MAX, sequence=UINT63_MAX) for peer in crowd]
    assert max(len(row.envelope_bytes) for row in rows) <= MAX_PROGRESS_BYTES
    closing = Closing(crowd[0].peer_id, CLOSE_RULES, UINT63_MAX - 1, NOW_S, ids(crowd))
    closing, effects = after(closing, *map(Progressed, rows), Tick())
    assert effects
    _, published = after(closing, Tick(), now_s=NOW_S + 60)
    data = seal_message(published[0].close, crowd[0])
    assert len(open_epoch_close(data).evidence) == MAX_EVIDENCE
    assert len(data) <= EPOCHS.max_bytes


def test_rules__exist_for_every_event() -> None:
    assert set(RULES) == {Progressed, Closed, Live, Tick}
