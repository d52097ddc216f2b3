"""Gathering: one copy of every shard that others reduced, checked against what its reducer signed.

Where reducers had different inputs, the fuller claim comes first. A reducer that makes it alone may not show what it
signed; then the other's copy is taken, by us as by everybody whom it treats likewise.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from iota_p2p.merge.collecting import FAILURES, ReducedShard
from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.proving import fetch_results
from iota_p2p.merge.reporting import Choice
from iota_p2p.merge.round import Means, Round
from iota_p2p_crypto.errors import InvalidProofError
from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES
from iota_p2p_protocols.butterfly.reducer_report import ShardClaim
from iota_p2p_protocols.butterfly.shard_digest import commit_shard
from iota_p2p_protocols.butterfly.shard_map import Shard

_log = logging.getLogger(__name__)

Results = dict[int, Sequence[bytes | memoryview]]  # blocks by shard


@dataclass(slots=True)
class Gathering:
    """Brings the shards that we have not reduced ourselves.

    Attributes:
        means: how members are called.
        round_: the merge.
        choices: by shard what can be taken, the best first.
        reduced: our own shards.
        results: what is here.
        claims: by shard what is here, or else was to be.
        num_bytes: of payload received.
    """

    means: Means
    round_: Round
    choices: Sequence[Sequence[Choice]]
    reduced: Mapping[int, ReducedShard]
    results: Results = field(default_factory=dict)
    claims: list[ShardClaim | None] = field(init=False)
    num_bytes: int = 0
    _tried: dict[int, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with the best claims."""
        self.claims = [choices[0].claim if choices else None for choices in self.choices]

    @property
    def here(self) -> bool:
        """Whether every shard that is not lost is here."""
        return all(claim is None or claim.shard in self.results for claim in self.claims)

    async def run(self) -> None:
        """Bring them all, each from one reducer, and from the other if that one fails."""
        while True:
            by_source = self._plan()
            if not by_source:
                return
            async with trio.open_nursery() as nursery:
                for source, shards in sorted(by_source.items()):
                    nursery.start_soon(self._bring, source, shards)

    def _plan(self) -> Mapping[int, list[Shard]]:
        by_source: dict[int, list[Shard]] = {}
        for shard, choices in zip(self.round_.shard_map.shards, self.choices, strict=True):
            source = None if shard.index in self.results else self._source(shard, choices)
            if source is not None:
                by_source.setdefault(source, []).append(shard)
        return by_source

    def _source(self, shard: Shard, choices: Sequence[Choice]) -> int | None:
        """Return whom to ask next for a shard; None if it is our own or nobody is left."""
        tried = self._tried.setdefault(shard.index, set())
        for choice in choices:
            left = [member for member in choice.members if member not in tried]
            if not left:
                continue
            self.claims[shard.index] = choice.claim
            if self.round_.me in left:
                self.results[shard.index] = self.reduced[shard.index].blocks
                return None
            first = shard.source_for(self.round_.me)
            source = first if first in left else left[0]
            tried.add(source)
            return source
        return None

    async def _bring(self, source: int, shards: Sequence[Shard]) -> None:
        try:
            await self._bring_all(source, shards)
        except FAILURES as error:
            reason = str(error) or "too slow"
            _log.info("results missing", extra={"peer": self.round_.contributors[source].peer_id, "reason": reason})

    async def _bring_all(self, source: int, shards: Sequence[Shard]) -> None:
        peer_id = self.round_.contributors[source].peer_id
        blocks = await fetch_results(self.means, self.round_, source, shards)
        self.num_bytes += sum(map(len, blocks.values()))
        for shard in shards:
            own = [blocks[index] for index in shard.blocks]
            with self.means.streams.ledger.charging(peer_id):
                await self.means.beside(partial(self._check, shard, own))
            self.results[shard.index] = own

    def _check(self, shard: Shard, blocks: Sequence[memoryview]) -> None:
        claim = self.claims[shard.index]
        assert claim is not None  # noqa: S101 - only such are planned
        # [merge-result] the copy is the one that was signed
        root = commit_shard(blocks, self.round_.result).root
        if root != claim.digest:
            raise InvalidProofError("merge-result", f"expected {claim.digest.hex()[:16]}, got {root.hex()[:16]}")


def write_mean(gradient_W: Vector, round_: Round, results: Results) -> list[Shard]:
    """Write the mean pseudo-gradient: zeros where a shard was lost or a block of it does not decode; takes long.

    Returns:
        The shards with such blocks: whoever signed them lied, and all members do without the same blocks.
    """
    malformed = []
    for shard in round_.shard_map.shards:
        values = gradient_W[shard.blocks.start * BLOCK_VALUES : shard.blocks.stop * BLOCK_VALUES]
        if shard.index not in results:
            values[:] = 0
        elif round_.result.decode_run_into(values, results[shard.index]):
            malformed.append(shard)
    return malformed
