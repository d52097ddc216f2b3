"""`Round`: one merge of one stage as its roster certificate fixes it, and our own part in it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from iota_p2p.merge.outer_step import Vector
from iota_p2p.network.streams import Streams
from iota_p2p_crypto.block_commitment import BlockCommitment, BlockShape, commit_blocks
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.errors import LocalProtocolError
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.codec import Codec, block_values, num_blocks
from iota_p2p_protocols.butterfly.codecs import encode_with_feedback, result_codec
from iota_p2p_protocols.butterfly.exchange import Span
from iota_p2p_protocols.butterfly.roster import RosterCertificate
from iota_p2p_protocols.butterfly.shard_map import Shard, ShardMap, draw_shard_map

T = TypeVar("T")


class Beside(Protocol):
    """Does what takes long outside the event loop, as `Lane.beside`."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """Return what the work returned."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every merge of ours works with.

    Attributes:
        identity: who we are.
        run_id: our run.
        streams: how others are called.
        beside: does what takes long.
        clock: Unix seconds.
    """

    identity: Identity
    run_id: bytes
    streams: Streams
    beside: Beside
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Committed:
    """Our contribution.

    Attributes:
        codec: how it is encoded.
        num_values: W.
        encoded: its blocks, end to end.
        commitment: to them.
        residual_W: what the codec lost, for the next one.
    """

    codec: Codec
    num_values: int
    encoded: bytes | memoryview
    commitment: BlockCommitment
    residual_W: Vector

    def blocks(self, span: Span) -> memoryview:
        """Return blocks that follow each other."""
        size = self.commitment.shape.block_bytes
        return memoryview(self.encoded)[span.first * size : span.blocks.stop * size]


def commit(gradient_W: Vector, codec: Codec, residual_W: Vector | None) -> Committed:
    """Encode a pseudo-gradient and commit to it; takes long. The gradient's memory becomes the next residual's.

    Raises:
        LocalProtocolError: if a value is not finite.
    """
    encoded = encode_with_feedback(codec, gradient_W, residual_W)
    return Committed(codec, len(gradient_W), encoded, commit_blocks(encoded, codec.block_bytes), gradient_W)


@dataclass(frozen=True, slots=True)
class Contributor:
    """One member of a roster.

    Attributes:
        peer_id: who it is.
        name: digest of its contribution's payload.
        root: of its blocks.
        samples: its microbatches.
    """

    peer_id: PeerId
    name: Digest
    root: bytes
    samples: int


@dataclass(frozen=True)
class Round:
    """One merge.

    Attributes:
        roster: digest of the roster certificate's payload.
        epoch: the epoch that ends.
        stage: the stage.
        codec: of the contributions.
        num_values: W.
        contributors: all members, in the roster's order.
        me: our place among them.
        committed: our own contribution.
        certificate: of the roster, for proofs.
    """

    roster: Digest
    epoch: int
    stage: int
    codec: Codec
    num_values: int
    contributors: tuple[Contributor, ...]
    me: int
    committed: Committed
    certificate: RosterCertificate | None = None

    @cached_property
    def shard_map(self) -> ShardMap:
        """Who reduces what."""
        return draw_shard_map(self.roster, len(self.contributors), num_blocks(self.num_values))

    @property
    def members(self) -> tuple[PeerId, ...]:
        """The members' ids."""
        return tuple(contributor.peer_id for contributor in self.contributors)

    @property
    def others(self) -> tuple[int, ...]:
        """The places of all members but us."""
        return tuple(member for member in range(len(self.contributors)) if member != self.me)

    @property
    def samples(self) -> tuple[int, ...]:
        """The members' microbatches."""
        return tuple(contributor.samples for contributor in self.contributors)

    @cached_property
    def shape(self) -> BlockShape:
        """The sizes of every contribution."""
        return BlockShape(self.codec.block_bytes, self.codec.encoded_bytes(self.num_values))

    @cached_property
    def result(self) -> Codec:
        """The codec of results."""
        return result_codec(self.codec)

    @property
    def own_shards(self) -> tuple[Shard, ...]:
        """The shards that we reduce and that have blocks."""
        return tuple(shard for shard in self.shard_map.of(self.me) if shard.blocks)

    def values_in(self, block: int) -> int:
        """Return how many values a block has."""
        return block_values(self.num_values, block)

    def member_of(self, peer_id: PeerId) -> int:
        """Return a member's place; raises LocalProtocolError for anybody else."""
        if peer_id not in self.members:
            raise LocalProtocolError(f"expected one of {len(self.members)} members, got {peer_id}")
        return self.members.index(peer_id)
