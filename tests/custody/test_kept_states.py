"""What a custodian keeps is what was pushed, or is gone; it fits the budget, and outlives the process."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from iota_p2p.custody import kept_states
from iota_p2p.custody.kept_states import ARRIVAL_IDLE_S, STALE_S, KeptStates
from iota_p2p.custody.snapshots import SignedState, StateSigner
from iota_p2p.run.spec import RunId
from iota_p2p.training.stage_state import StageState
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_protocols import state_manifest
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.state_manifest import LIFETIME_S
from tests.custody.keepers import BOUNDS, CHUNK_BYTES, NUM_BYTES, RUN, STAGE, identity_of, state_of

NOW_S = 1_800_000_000.0
PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_manifest, "CHUNK_BYTES", CHUNK_BYTES)


def signed(seed: int = 0, *, by: int = 1, now_s: float = NOW_S, stage: int = STAGE, run_id: bytes = RUN) -> SignedState:
    async def sign() -> SignedState:
        state = StageState(stage, 6, 60 + seed, state_of(seed).checkpoint)
        return await StateSigner(identity_of(by), run_id, lambda _: BOUNDS, lambda: now_s).sign(state)

    return trio.run(sign)


def push(kept: KeptStates, state: SignedState, now_s: float = NOW_S) -> int:
    """Push a state; return how many chunks were missing."""
    missing = kept.offer(state.listing, now_s)
    for index in missing:
        kept.put(state.listing.name, index, state.chunk(index), now_s)
    assert not kept.offer(state.listing, now_s)
    return len(missing)


def read(kept: KeptStates, stage: int = STAGE) -> bytes | None:
    """Return the best state of a stage; None if any of it is missing."""
    listing = kept.best(stage, NOW_S)
    chunks = [] if listing is None else [kept.chunks.get(name) for name in listing.digests]
    return None if not chunks or None in chunks else b"".join(filter(None, chunks))


def opened(folder: Path, budget_bytes: int = PLENTY, run_id: bytes = RUN) -> KeptStates:
    return KeptStates(folder, run_id, budget_bytes)


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


@contextmanager
def disk_of(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond some bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_state__is_kept_across_restarts(tmp_path: Path) -> None:
    state = signed()
    assert push(opened(tmp_path), state) == 13
    again = opened(tmp_path)
    assert read(again) == state.checkpoint
    assert again.stages() == [STAGE]
    assert read(opened(tmp_path, run_id=RunId(bytes(32)))) is None, "a folder of another run's states is set aside"


def test_later_state__replaces_the_earlier_and_only_what_changed_travels(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    first = signed(0)
    push(kept, first)
    later = _with_tail_of(first, signed(1, now_s=NOW_S + 1))
    assert push(kept, later, NOW_S + 1) == 9, "the four chunks of the weights are there"
    assert read(kept) == later.checkpoint
    assert len(files_in(tmp_path, "*.chunk")) == 13
    with pytest.raises(RefusedError) as caught:
        kept.offer(first.listing, NOW_S)
    assert caught.value.reason == "older"


def _with_tail_of(first: SignedState, second: SignedState) -> SignedState:
    checkpoint = second.checkpoint[: -BOUNDS.weights_bytes] + first.checkpoint[-BOUNDS.weights_bytes :]

    async def sign() -> SignedState:
        state = StageState(STAGE, 6, 61, checkpoint)
        signer = StateSigner(identity_of(1), RUN, lambda _: BOUNDS, lambda: NOW_S + 1)
        return await signer.sign(state)

    return trio.run(sign)


def test_push__that_is_not_finished_replaces_nothing(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    first, later = signed(0), signed(1, now_s=NOW_S + 1)
    push(kept, first)
    for index in kept.offer(later.listing, NOW_S)[:-1]:
        kept.put(later.listing.name, index, later.chunk(index), NOW_S)
    assert read(kept) == first.checkpoint
    assert read(opened(tmp_path)) == first.checkpoint
    assert len(files_in(tmp_path, "*.chunk")) == 13, "a restart drops what was under way"


def test_push__that_rests_for_long_is_given_up(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    slow, other = signed(0), signed(1, by=2)
    kept.offer(slow.listing, NOW_S)
    kept.put(slow.listing.name, 0, slow.chunk(0), NOW_S)
    push(kept, other, NOW_S + ARRIVAL_IDLE_S + 1)
    with pytest.raises(RefusedError) as caught:
        kept.put(slow.listing.name, 1, slow.chunk(1), NOW_S + ARRIVAL_IDLE_S + 1)
    assert caught.value.reason == "not-offered"
    assert len(files_in(tmp_path, "*.chunk")) == 13


@pytest.mark.parametrize("index", range(13))
def test_chunk__reject_any_other_bytes(index: int, tmp_path: Path) -> None:
    kept, state = opened(tmp_path), signed()
    kept.offer(state.listing, NOW_S)
    chunk = state.chunk(index)
    for wrong in (chunk[:-1], chunk + b"x", b"", bytes([chunk[0] ^ 1]) + chunk[1:]):
        with pytest.raises(MalformedError):
            kept.put(state.listing.name, index, wrong, NOW_S)
    assert files_in(tmp_path, "*.chunk") == []


def test_budget__refuses_what_does_not_fit_and_drops_nothing_for_it(tmp_path: Path) -> None:
    kept = opened(tmp_path, 2 * NUM_BYTES)
    first, second, third = signed(0), signed(1, by=2), signed(2, by=3)
    push(kept, first)
    kept.offer(second.listing, NOW_S)
    with pytest.raises(RefusedError) as caught:
        kept.offer(third.listing, NOW_S)
    assert caught.value.reason == "full"
    assert read(kept) == first.checkpoint


def test_signers_of_a_stage__are_bounded_until_one_is_stale(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    for number in range(1, kept_states.MAX_SIGNERS + 1):
        push(kept, signed(number, by=number))
    newcomer = signed(9, by=9, now_s=NOW_S + STALE_S + 1)
    with pytest.raises(RefusedError):
        kept.offer(newcomer.listing, NOW_S)
    push(kept, newcomer, NOW_S + STALE_S + 1)
    assert len(files_in(tmp_path, "*.listing")) == kept_states.MAX_SIGNERS
    assert read(kept) == newcomer.checkpoint


def test_expired_state__is_not_offered(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    push(kept, signed())
    assert kept.best(STAGE, NOW_S + LIFETIME_S) is None


def _damages(data: bytes) -> Iterator[bytes]:
    """Yield a file damaged in every byte, cut at many lengths, and with something behind it."""
    for index in range(len(data)):
        yield data[:index] + bytes([data[index] ^ (1 << index % 8)]) + data[index + 1 :]
    for length in (*range(0, len(data), 7), len(data) - 1):
        yield data[:length]
    yield data + b"\0"


def test_damaged_chunk__is_set_aside_and_asked_for_again(tmp_path: Path) -> None:
    """Any byte changed, or cut short: never served, and the pusher's next offer finds it missing."""
    kept, state = opened(tmp_path), signed()
    push(kept, state)
    path = tmp_path / "chunks" / f"{state.listing.digests[2].hex()}.chunk"
    whole = path.read_bytes()
    for damaged in _damages(whole):
        path.write_bytes(damaged)
        assert kept.chunks.get(state.listing.digests[2]) is None
        assert not path.exists()
        assert (path.parent / "last.damaged").read_bytes() == damaged
        assert kept.offer(state.listing, NOW_S) == [2]
        assert push(kept, state) == 1
        assert read(kept) == state.checkpoint


def test_damaged_listing__is_set_aside_at_the_next_start(tmp_path: Path) -> None:
    state = signed()
    push(opened(tmp_path), state)
    (path,) = files_in(tmp_path, "*.listing")
    whole = path.read_bytes()
    for damaged in _damages(whole):
        path.write_bytes(damaged)
        assert opened(tmp_path).best(STAGE, NOW_S) is None
        assert path.with_suffix(".damaged").read_bytes() == damaged
        assert files_in(tmp_path, "*.chunk") == []
    assert push(opened(tmp_path), state) == 13


@pytest.mark.parametrize("num_bytes", [0, 50, 90])
def test_full_disk__refuses_and_keeps_what_was_there(num_bytes: int, tmp_path: Path) -> None:
    kept = opened(tmp_path)
    first, later = signed(0), signed(1, now_s=NOW_S + 1)
    push(kept, first)
    with disk_of(num_bytes), pytest.raises(OSError, match="too large"):
        push(kept, later)
    assert read(kept) == first.checkpoint
    assert files_in(tmp_path, "*.partial") == []
    push(kept, later)
    assert read(kept) == later.checkpoint


def test_disk__that_takes_chunks_but_no_listing_keeps_the_earlier_state(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    first, later = signed(0), signed(1, now_s=NOW_S + 1)
    push(kept, first)
    with disk_of(CHUNK_BYTES), pytest.raises(OSError, match="too large"):
        push(kept, later)
    assert read(kept) == first.checkpoint == read(opened(tmp_path))
