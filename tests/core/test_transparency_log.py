import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import InvalidProofError, LocalProtocolError, StaleError
from iota_p2p_crypto.identity import Identity
from iota_p2p_crypto.merkle import EMPTY_ROOT, verify_inclusion
from iota_p2p_crypto.transparency_log import (
    MAX_REMEMBERED_HEADS,
    EquivocationError,
    LogView,
    TransparencyLog,
)
from iota_p2p_crypto.tree_head import TreeHead, open_tree_head, sign_tree_head

OWNER = Identity.from_seed(bytes(32))
OTHER = Identity.from_seed(bytes([1]) * 32)
RUN = bytes([7]) * 32
NOW_S = 1_700_000_000


def new_log(num_entries: int, *, word: bytes = b"entry") -> TransparencyLog:
    return TransparencyLog(RUN, OWNER.peer_id, (b"%s %d" % (word, i) for i in range(num_entries)))


def signed(log: TransparencyLog, now_s: int = NOW_S) -> Verified[TreeHead]:
    return open_tree_head(sign_tree_head(log.head(now_s), OWNER), RUN)


def new_view() -> LogView:
    return LogView(RUN, OWNER.peer_id)


def test_view__begins_with_the_empty_log() -> None:
    view = new_view()
    assert (view.head, view.size, view.root) == (None, 0, EMPTY_ROOT)
    view.accept(signed(new_log(0)))
    assert (view.size, view.root) == (0, EMPTY_ROOT)


def test_view__follows_a_growing_log() -> None:
    log, view = new_log(0), new_view()
    for index in range(20):
        assert log.append(b"entry %d" % index) == index
        view.accept(signed(log), log.prove_consistency(view.size))
        assert (view.size, view.root) == (len(log), log.head(0).root)
    verify_inclusion(root=view.root, size=view.size, index=7, data=b"entry 7", proof=log.prove_inclusion(7, view.size))


def test_view__stays_where_it_is_when_a_proof_fails() -> None:
    view = new_view()
    view.accept(signed(new_log(5)))
    rewritten = new_log(9, word=b"other")
    for proof in (rewritten.prove_consistency(5), new_log(9).prove_consistency(5), ()):
        with pytest.raises(InvalidProofError):
            view.accept(signed(rewritten), proof)
        assert (view.size, view.root) == (5, new_log(5).head(0).root)


def test_view__convicts_the_owner_of_two_roots_at_one_size() -> None:
    view, honest, forged = new_view(), signed(new_log(5)), signed(new_log(5, word=b"other"))
    view.accept(honest)
    with pytest.raises(EquivocationError) as caught:
        view.accept(forged)
    error = caught.value
    assert (error.rule, error.peer_id) == ("tree-head-equivocation", OWNER.peer_id)
    # The evidence is the two envelopes, and convinces whoever opens them.
    heads = [open_tree_head(head.envelope_bytes, RUN).payload for head in (error.first, error.second)]
    assert heads[0].size == heads[1].size
    assert heads[0].root != heads[1].root
    assert view.head is honest


def test_view__convicts_the_owner_of_an_earlier_fork() -> None:
    log, view = new_log(5), new_view()
    view.accept(signed(log))
    log.append(b"more")
    view.accept(signed(log), log.prove_consistency(5))
    with pytest.raises(EquivocationError):
        view.accept(signed(new_log(5, word=b"other")))
    assert view.size == 6


def test_view__takes_a_known_head_again_with_any_time() -> None:
    view, log = new_view(), new_log(5)
    view.accept(signed(log))
    view.accept(signed(log, NOW_S + 60), (bytes(32),))
    view.accept(signed(log, NOW_S - 60))
    assert view.size == 5


def test_view__refuses_a_shorter_head_it_never_saw() -> None:
    view = new_view()
    view.accept(signed(new_log(5)))
    with pytest.raises(StaleError) as caught:
        view.accept(signed(new_log(4)))
    assert caught.value.rule == "tree-head-rollback"


def test_view__forgets_the_oldest_heads_beyond_its_bound() -> None:
    log, view = new_log(1), new_view()
    view.accept(signed(log))
    first = signed(log)
    for index in range(MAX_REMEMBERED_HEADS - 1):
        log.append(b"%d" % index)
        view.accept(signed(log), log.prove_consistency(view.size))
    view.accept(first)
    log.append(b"last")
    view.accept(signed(log), log.prove_consistency(view.size))
    assert len(view._heads) == MAX_REMEMBERED_HEADS
    with pytest.raises(StaleError):
        view.accept(first)


@pytest.mark.parametrize("view", [LogView(RUN, OTHER.peer_id), LogView(bytes(32), OWNER.peer_id)], ids=["log", "run"])
def test_view__crashes_on_a_head_of_another_log(view: LogView) -> None:
    with pytest.raises(LocalProtocolError):
        view.accept(signed(new_log(5)))


class TwoHistories(RuleBasedStateMachine):
    """An owner keeps two logs that may fork; one view must never hold heads of both sides of the fork."""

    def __init__(self) -> None:
        super().__init__()
        self.logs = [new_log(0), new_log(0)]
        self.entries: list[list[bytes]] = [[], []]
        self.view = new_view()

    @rule(entry=st.binary(max_size=2))
    def append_to_both(self, entry: bytes) -> None:
        for which in (0, 1):
            self.append(which, entry)

    @rule(which=st.integers(0, 1), entry=st.binary(max_size=2))
    def append(self, which: int, entry: bytes) -> None:
        self.logs[which].append(entry)
        self.entries[which].append(entry)

    @rule(which=st.integers(0, 1))
    def show(self, which: int) -> None:
        log, old = self.logs[which], self.view.size
        proof = log.prove_consistency(old) if old <= len(log) else ()
        try:
            self.view.accept(signed(log), proof)
        except EquivocationError:
            assert self.entries[0] != self.entries[1]
        except InvalidProofError:
            assert self.entries[which][:old] != self.entries[1 - which][:old]
        except StaleError:
            assert len(log) < old

    @invariant()
    def view_holds_a_prefix_of_one_history(self) -> None:
        size = self.view.size
        roots = [
            TransparencyLog(RUN, OWNER.peer_id, entries[:size]).head(0).root
            for entries in self.entries
            if len(entries) >= size
        ]
        assert self.view.root in roots


TestTwoHistories = TwoHistories.TestCase
TestTwoHistories.settings = settings(max_examples=40, stateful_step_count=20)
