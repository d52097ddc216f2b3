"""`reduce_round`: from a roster certificate to the mean pseudo-gradient that its members agree on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from iota_p2p.merge.collecting import Collecting
from iota_p2p.merge.gathering import Gathering, Results, write_mean
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.memory import MergeMemory, Reduced
from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.proving import prove_contributors
from iota_p2p.merge.reporting import Reporting
from iota_p2p.merge.round import Means, Round
from iota_p2p_crypto.block_commitment import BlockShape
from iota_p2p_protocols.butterfly.agreement import AgreementMatrix, disputed
from iota_p2p_protocols.butterfly.reducer_report import ShardClaim


@dataclass(frozen=True, slots=True)
class Reduction:
    """What a merge came to.

    Attributes:
        gradient_W: mean pseudo-gradient.
        results: the blocks that it was decoded from, by shard.
        claims: by shard what everybody takes; None where it is lost or empty.
        here: whether every shard that is not lost is here.
        lost_shards: how many shards with blocks keep their old value.
        matrix: who agreed with whom.
        liars: members that were proved to lie.
        faults: the proofs.
        clipped: members of whom we scaled some block down.
        bytes_in: payload bytes received for it.
    """

    gradient_W: Vector
    results: Results
    claims: Sequence[ShardClaim | None]
    here: bool
    lost_shards: int
    matrix: AgreementMatrix
    liars: frozenset[int]
    faults: Sequence[bytes]
    clipped: frozenset[int]
    bytes_in: int


async def reduce_round(
    means: Means,
    round_: Round,
    letters: Letters,
    memory: MergeMemory,
    *,
    into_W: Vector,
    collect: type[Collecting] = Collecting,
) -> Reduction:
    """Reduce our shards, report, compare, and gather the others'. Ends in bounded time whoever dies.

    Args:
        means: what merges work with.
        round_: the merge.
        letters: its.
        memory: what members may ask us for.
        into_W: memory for the mean; to clear new memory would take a tenth of a merge's processor time.
        collect: how our shards are reduced.
    """
    started_s = trio.current_time()
    collecting = collect(means, round_, round_.own_shards)
    reduced = await collecting.run()
    result = round_.result
    shape = BlockShape(result.block_bytes, result.encoded_bytes(round_.num_values))
    blocks = {
        index: block
        for shard in round_.own_shards
        for index, block in zip(shard.blocks, reduced[shard.index].blocks, strict=True)
    }
    memory.keep_reduced(round_.stage, round_.epoch, round_.roster, Reduced(shape, blocks))
    reporting = Reporting(means, round_, letters)
    reporting.report([reduced[shard.index] for shard in round_.own_shards])
    await reporting.hear(trio.current_time() - started_s)
    await reporting.judge(disputed(round_.shard_map, reporting.payloads))
    gathering = Gathering(means, round_, reporting.choices(), reduced)
    await gathering.run()
    await reporting.judge(await means.beside(partial(write_mean, into_W, round_, gathering.results)))
    faults = await means.beside(partial(prove_contributors, collecting, list(reduced.values())))
    return Reduction(
        gradient_W=into_W,
        results=gathering.results,
        claims=gathering.claims,
        here=gathering.here,
        lost_shards=sum(
            claim is None and bool(s.blocks) for claim, s in zip(gathering.claims, round_.shard_map.shards, strict=True)
        ),
        matrix=reporting.matrix,
        liars=frozenset(reporting.liars),
        faults=(*reporting.faults, *faults),
        clipped=frozenset().union(*(shard.clipped for shard in reduced.values())),
        bytes_in=gathering.num_bytes + sum(fetch.num_bytes for fetch in collecting.fetches.values()),
    )
