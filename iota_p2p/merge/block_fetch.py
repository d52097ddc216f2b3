"""Fetching members' committed blocks, and checking each against what its member signed.

    blocks = await fetch_blocks(means, round_, member, wanted)       # all of them, or an error

A call brings up to 16 MiB, since the daemon carries large frames several times faster than small ones. Hashing happens
beside the event loop, while the next call is under way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from iota_p2p.merge.round import Means, Round
from iota_p2p.network.streams import Request
from iota_p2p_crypto.block_commitment import BlockCommitment, open_block_list
from iota_p2p_crypto.digest import DIGEST_BYTES
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_protocols.butterfly.exchange import BlocksRequest, Span, spans_of
from iota_p2p_protocols.framing import Payload
from iota_p2p_protocols.ids import MERGE

# What a member may take for a call before we go on without it: a round trip on a loaded machine, and bytes at a rate
# that a home uplink of 8 Mbit/s has. Whoever died is noticed at once, because its streams break.
CALL_S = 1.0
LEAST_BYTES_PER_S = 1_000_000

Blocks = Mapping[int, memoryview]  # by index


def patience_s(num_bytes: int) -> float:
    """Return how long to wait for an answer of so many bytes."""
    return CALL_S + num_bytes / LEAST_BYTES_PER_S


def split(payload: memoryview, spans: Sequence[Span], block_bytes: int, total_bytes: int) -> Blocks:
    """Return the blocks in an answer; raises MalformedError if its length is another."""
    blocks: dict[int, memoryview] = {}
    at = 0
    for span in spans:
        for index in span.blocks:
            length = min(block_bytes, total_bytes - index * block_bytes)
            blocks[index] = payload[at : at + length]
            at += length
    if at != len(payload):
        raise MalformedError("merge-blocks-length", f"expected {at} bytes of blocks, got {len(payload)}")
    return blocks


@dataclass(slots=True)
class BlockFetch:
    """Brings blocks of one member's contribution.

    Attributes:
        means: how it is called.
        round_: the merge.
        member: whose blocks.
        blocks: those that came and were right.
        num_bytes: of payload received.
    """

    means: Means
    round_: Round
    member: int
    blocks: dict[int, memoryview] = field(default_factory=dict)
    num_bytes: int = 0
    _commitment: BlockCommitment | None = None

    async def run(self, wanted: Sequence[int]) -> None:
        """Bring blocks.

        Raises:
            PeerUnavailableError, RefusedError, trio.TooSlowError: if the member does not give them.
            RemoteProtocolError: if what it gives is not what it signed; it has been charged.
        """
        missing = [index for index in wanted if index not in self.blocks]
        for spans in spans_of(missing, self.round_.shape.block_bytes):
            payload = memoryview(await self._call(spans)).cast("B")
            with self.means.streams.ledger.charging(self.round_.contributors[self.member].peer_id):
                self.blocks.update(await self.means.beside(partial(self._check, payload, spans)))

    async def _call(self, spans: tuple[Span, ...]) -> Payload:
        contributor, shape = self.round_.contributors[self.member], self.round_.shape
        wants_list = self._commitment is None
        request = BlocksRequest(contribution=contributor.name, wants_list=wants_list, spans=spans)
        expected = sum(span.count for span in spans) * shape.block_bytes + wants_list * shape.num_blocks * DIGEST_BYTES
        with trio.fail_after(patience_s(expected)):
            response = await self.means.streams.call(contributor.peer_id, MERGE, Request(request.to_fields()))
        self.num_bytes += len(memoryview(response.payload).cast("B"))
        return response.payload

    def _check(self, payload: memoryview, spans: tuple[Span, ...]) -> Blocks:
        shape = self.round_.shape
        if self._commitment is None:
            end = shape.num_blocks * DIGEST_BYTES
            root = self.round_.contributors[self.member].root
            self._commitment = open_block_list(root, shape, bytes(payload[:end]))
            payload = payload[end:]
        blocks = split(payload, spans, shape.block_bytes, shape.total_bytes)
        for index, block in blocks.items():
            self._commitment.check_block(index, block)
        return blocks

    @property
    def commitment(self) -> BlockCommitment | None:
        """The member's block list, once it came."""
        return self._commitment
