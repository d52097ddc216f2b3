"""`Snapshots`: frozen, signed states of the stages we hold, shared by those who fetch them and by our own pushes.

A state changes while it travels, so it is copied once and kept until nobody asks for its chunks any more; training
goes on meanwhile.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from math import floor

import trio

from iota_p2p.training.stage_state import StageState, StateBounds
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.state_manifest import LIFETIME_S, NO_CERTIFICATE, Listing, StateManifest, cut

# Copies of whole states kept at a time, each as large as the stage's weights and moments together: many of a small
# model, whose lone holder hands all its stages over at once; of a large one a second only while it fits this.
MAX_SNAPSHOTS = 64
MAX_SNAPSHOT_BYTES = 2 * 2**30
# Peers that ask within this time of each other get the same copy: joiners come in crowds.
SHARE_S = 5.0
# A copy that nobody has asked for any more since then is dropped: its joiner is done or dead.
IDLE_S = 30.0
# A copy is dropped after the time that a joiner needs at this rate, so that it cannot be held for ever.
SLOWEST_BYTES_PER_S = 256 * 1024
_LEAST_LIFE_S = 60.0

TakeState = Callable[[int], Awaitable[StageState | None]]


@dataclass(frozen=True, slots=True)
class SignedState:
    """A state and what we signed of it."""

    listing: Listing
    checkpoint: bytes

    def chunk(self, index: int) -> bytes:
        """Return a chunk."""
        start, end = self.listing.state.span(index)
        return self.checkpoint[start:end]


@dataclass(frozen=True, slots=True)
class StateSigner:
    """Signs our states.

    Attributes:
        identity: who we are.
        run_id: our run.
        bounds: what a state of each stage can be.
        clock: Unix seconds.
    """

    identity: Identity
    run_id: bytes
    bounds: Callable[[int], StateBounds]
    clock: Callable[[], float]

    async def sign(self, state: StageState) -> SignedState:
        """Return a state with our manifest of it, letting others run between any two chunks."""
        weights_bytes = self.bounds(state.stage).weights_bytes
        digests: list[Digest] = []
        theta, before = hashlib.sha256(), len(state.checkpoint) - weights_bytes
        for chunk in cut(state.checkpoint, weights_bytes):
            digests.append(digest(chunk))
            if before <= 0:
                theta.update(chunk)
            before -= len(chunk)
            await trio.lowlevel.checkpoint()
        now_s = self.clock()
        manifest = StateManifest(
            run_id=self.run_id,
            sequence=floor(now_s * 1000),
            issued_s=floor(now_s),
            expires_s=floor(now_s) + LIFETIME_S,
            stage=state.stage,
            epoch=state.epoch,
            num_steps=state.num_steps,
            num_bytes=len(state.checkpoint),
            weights_bytes=weights_bytes,
            chunks_digest=digest(b"".join(digests)),
            theta_digest=theta.digest(),
            certificate=state.certificate or NO_CERTIFICATE,
        )
        opened = open_signed(seal_message(manifest, self.identity), StateManifest)
        return SignedState(Listing(opened, tuple(digests)), state.checkpoint)


@dataclass(slots=True)
class _Snapshot:
    """A frozen state and who may still want it."""

    signed: SignedState
    taken_s: float
    asked_s: float

    def is_over(self, now_s: float) -> bool:
        life_s = _LEAST_LIFE_S + len(self.signed.checkpoint) / SLOWEST_BYTES_PER_S
        return now_s > self.asked_s + IDLE_S or now_s > self.taken_s + life_s


@dataclass(slots=True)
class Snapshots:
    """Freezes states and finds their chunks.

    Attributes:
        take: freezes a stage (on the compute lane), or returns None if we do not hold it, or not yet.
        signer: signs it.
    """

    take: TakeState
    signer: StateSigner
    _kept: list[_Snapshot] = field(default_factory=list)
    _taking: trio.Lock = field(default_factory=trio.Lock)  # one at a time: the bound counts what is there

    async def fresh(self, stage: int, max_age_s: float = SHARE_S) -> SignedState:
        """Return a state of the stage that is not older than this.

        Raises:
            RefusedError: if we do not hold the stage, or too much is being fetched.
        """
        async with self._taking:
            self._drop_old()
            oldest_s = trio.current_time() - max_age_s
            shared = [s for s in self._kept if s.signed.listing.state.stage == stage and s.taken_s >= oldest_s]
            snapshot = shared[-1] if shared else await self._freeze(stage)
            snapshot.asked_s = trio.current_time()
            return snapshot.signed

    def chunk(self, name: Digest) -> bytes | None:
        """Return a chunk of any state that is kept; the states that hold it are kept on."""
        self._drop_old()
        found: bytes | None = None
        for snapshot, index in self._places(name):
            snapshot.asked_s = trio.current_time()
            found = snapshot.signed.chunk(index) if found is None else found
        return found

    def _places(self, name: Digest) -> Iterator[tuple[_Snapshot, int]]:
        for snapshot in self._kept:
            digests = snapshot.signed.listing.digests
            if name in digests:
                yield snapshot, digests.index(name)

    def _drop_old(self) -> None:
        now_s = trio.current_time()
        self._kept = [snapshot for snapshot in self._kept if not snapshot.is_over(now_s)]

    async def _freeze(self, stage: int) -> _Snapshot:
        kept_bytes = sum(len(snapshot.signed.checkpoint) for snapshot in self._kept)
        if len(self._kept) >= MAX_SNAPSHOTS or kept_bytes >= MAX_SNAPSHOT_BYTES:
            raise RefusedError("busy", f"expected room for another snapshot, got {kept_bytes} bytes being fetched")
        state = await self.take(stage)
        if state is None:
            raise RefusedError("not-held", f"expected a stage that we hold, got {stage}")
        now_s = trio.current_time()
        snapshot = _Snapshot(await self.signer.sign(state), now_s, now_s)
        self._kept.append(snapshot)
        return snapshot
