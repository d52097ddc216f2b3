"""Members of a merge on the simulated network, without training."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import trio

from iota_p2p.merge.letters import Letters
from iota_p2p.merge.memory import MergeMemory
from iota_p2p.merge.merge_server import MergeServer
from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.round import Committed, Contributor, Means, Round, T, commit
from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryHost, MemoryNetwork, open_memory_network
from iota_p2p.network.streams import open_streams
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.exchange import Note
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import MERGE

LINK = LinkModel(latency_s=0.002, jitter_s=0.001, up_bytes_per_s=125e6, down_bytes_per_s=125e6)
RUN_ID = sha256(b"a run of merges").digest()


async def at_once(work: Callable[[], T], /) -> T:
    await trio.lowlevel.checkpoint()
    return work()


@dataclass
class MergingNode:
    """One member."""

    means: Means
    host: MemoryHost
    memory: MergeMemory = field(default_factory=MergeMemory)
    letters: Letters | None = None

    def take(self, caller: PeerId, note: Note) -> None:
        if self.letters is None:
            raise RefusedError("not-yet", "expected a merge, got a letter")
        self.letters.take(caller, note.what, note.data)


@asynccontextmanager
async def merging_nodes(
    count: int, memories: Mapping[int, MergeMemory] | None = None
) -> AsyncIterator[tuple[MemoryNetwork, list[MergingNode]]]:
    """Open connected members, some of whom have memories of their own; all are gone when the context ends."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(open_memory_network(1, LINK))
        nodes: list[MergingNode] = []
        identities = [Identity.from_seed(sha256(b"member %d" % number).digest()) for number in range(count)]
        for number, identity in enumerate(sorted(identities, key=lambda identity: identity.peer_id)):
            host = network.host(identity.peer_id)
            streams = await stack.enter_async_context(open_streams(host))
            means = Means(
                identity=identity,
                run_id=RUN_ID,
                streams=streams,
                beside=at_once,
                clock=lambda: 1_800_000_000 + trio.current_time(),
            )
            nodes.append(MergingNode(means, host, (memories or {}).get(number) or MergeMemory()))
            await streams.serve(MERGE, MergeServer(nodes[-1].memory, nodes[-1].take).answer)
            if number:
                await host.connect((await nodes[0].host.addresses())[0])
        yield network, nodes


def gradients(count: int, num_values: int, seed: int = 0) -> list[Vector]:
    """Draw pseudo-gradients that have something in common, as replicas' do."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(num_values)
    return [(0.01 * (common + rng.standard_normal(num_values))).astype(np.float32) for _ in range(count)]


def rounds(nodes: Sequence[MergingNode], vectors: Sequence[Vector], codec: str, samples: Sequence[int]) -> list[Round]:
    """Let every member commit, and return their rounds, as a certificate would give them."""
    committed = [commit(vector.copy(), CODECS[codec], None) for vector in vectors]
    contributors = tuple(
        Contributor(node.means.identity.peer_id, digest(own.commitment.root), own.commitment.root, count)
        for node, own, count in zip(nodes, committed, samples, strict=True)
    )
    for node, own, contributor in zip(nodes, committed, contributors, strict=True):
        node.memory.keep_committed(0, 0, contributor.name, own)
    return [_round(contributors, me, own) for me, own in enumerate(committed)]


def _round(contributors: tuple[Contributor, ...], me: int, own: Committed) -> Round:
    roster = digest(b"".join(contributor.root for contributor in contributors))
    return Round(roster, 0, 0, own.codec, own.num_values, contributors, me, own)
