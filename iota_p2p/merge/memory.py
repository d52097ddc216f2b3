"""`MergeMemory`: what we answer to other members: our committed blocks, what we reduced, what our stages began with.

All of it is in memory and bounded: two epochs of contributions and results for each stage that we hold.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from iota_p2p.merge.outer_step import OuterState, Vector
from iota_p2p.merge.round import Committed
from iota_p2p_crypto.block_commitment import BlockShape
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_protocols.butterfly.exchange import Base, BaseRequest, BlocksRequest, ResultRequest, check_spans
from iota_p2p_protocols.errors import RefusedError

Parts = Sequence[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Reduced:
    """What we reduced in one merge.

    Attributes:
        shape: of a whole vector of results.
        blocks: by index.
    """

    shape: BlockShape
    blocks: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class KnownBase:
    """What a stage began an epoch with.

    Attributes:
        state: weights, and velocity if there is one.
        about: what we say of it.
    """

    state: OuterState
    about: Base

    @classmethod
    def of(cls, state: OuterState, epoch: int) -> "KnownBase":
        """Return the base of an epoch; takes long."""
        velocity = b"" if state.velocity_W is None else vector_digest(state.velocity_W)
        about = Base(epoch=epoch, digest=vector_digest(state.theta_W), num_values=len(state.theta_W), velocity=velocity)
        return cls(state, about)


def vector_digest(vector_W: Vector) -> Digest:
    """Return the SHA-256 of a vector's bytes: float32, little-endian."""
    return digest(vector_W.astype("<f4", copy=False).data.cast("B"))


@dataclass(slots=True)
class MergeMemory:
    """What can be asked for; see `exchange`.

    Attributes:
        bases: by stage.
    """

    bases: dict[int, KnownBase] = field(default_factory=dict)
    _committed: dict[tuple[int, int], dict[Digest, Committed]] = field(default_factory=dict)  # by stage and epoch
    _reduced: dict[tuple[int, int], dict[Digest, Reduced]] = field(default_factory=dict)
    _given: Counter[tuple[int, int]] = field(default_factory=Counter)

    def given(self, stage: int, epoch: int) -> int:
        """Return how many payload bytes others had of us for one merge."""
        return self._given[stage, epoch]

    def keep_committed(self, stage: int, epoch: int, name: Digest, committed: Committed) -> None:
        """Keep our contribution under its name."""
        self._committed.setdefault((stage, epoch), {})[name] = committed

    def keep_reduced(self, stage: int, epoch: int, roster: Digest, reduced: Reduced) -> None:
        """Keep what we reduced."""
        self._reduced.setdefault((stage, epoch), {})[roster] = reduced

    def forget_before(self, stage: int, epoch: int) -> None:
        """Drop what a stage's earlier merges left."""
        for kept in (self._committed, self._reduced, self._given):
            for key in [key for key in kept if key[0] == stage and key[1] < epoch]:
                del kept[key]

    def forget_stage(self, stage: int) -> None:
        """Drop all of a stage that we hold no longer."""
        self.forget_before(stage, 1 << 63)
        self.bases.pop(stage, None)

    def blocks(self, request: BlocksRequest) -> Parts:
        """Answer with parts of our contribution; raises RefusedError, MalformedError."""
        name = Digest(request.contribution)
        key = next((key for key, of in self._committed.items() if name in of), None)
        if key is None:
            raise RefusedError("absent", f"expected a contribution of ours, got {name.hex()[:16]}")
        committed = self._committed[key][name]
        check_spans(request.spans, committed.commitment.shape)
        lists = [committed.commitment.digests] if request.wants_list else []
        return self._counted(key, [*lists, *map(committed.blocks, request.spans)])

    def results(self, request: ResultRequest) -> Parts:
        """Answer with blocks that we reduced; raises RefusedError, MalformedError."""
        name = Digest(request.roster)
        key = next((key for key, of in self._reduced.items() if name in of), None)
        if key is None:
            raise RefusedError("absent", f"expected a merge that we reduced in, got {name.hex()[:16]}")
        reduced = self._reduced[key][name]
        check_spans(request.spans, reduced.shape)
        indexes = [index for span in request.spans for index in span.blocks]
        if not reduced.blocks.keys() >= set(indexes):
            raise RefusedError("absent", "expected blocks that we reduced, got others")
        return self._counted(key, [reduced.blocks[index] for index in indexes])

    def _counted(self, key: tuple[int, int], parts: Parts) -> Parts:
        self._given[key] += sum(map(len, parts))
        return parts

    def base(self, request: BaseRequest) -> tuple[Base, Sequence[memoryview]]:
        """Answer what a stage began with; raises RefusedError."""
        known = self.bases.get(request.stage)
        if known is None:
            raise RefusedError("absent", f"expected a stage whose first state we know, got {request.stage}")
        if not request.count:
            return known.about, ()
        values_W = known.state.velocity_W if request.velocity else known.state.theta_W
        if request.digest != known.about.digest or values_W is None or request.first >= len(values_W):
            raise RefusedError("absent", f"expected values of the state {known.about.digest.hex()[:16]}")
        part = values_W[request.first : request.first + request.count].astype("<f4", copy=False)
        return known.about, (part.data.cast("B"),)
