"""Nodes that call each other over the simulated network."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryHost, MemoryNetwork, open_memory_network
from iota_p2p.network.streams import Streams, open_streams
from iota_p2p_crypto.identity import PeerId

LINK = LinkModel(latency_s=0.01, jitter_s=0)


@dataclass
class CallingNode:
    host: MemoryHost
    streams: Streams

    @property
    def peer_id(self) -> PeerId:
        return self.host.peer_id


@asynccontextmanager
async def calling_nodes(count: int, link: LinkModel = LINK) -> AsyncIterator[tuple[MemoryNetwork, list[CallingNode]]]:
    """Open connected nodes; all are gone when the context ends."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(open_memory_network(1, link))
        hosts = [network.host(PeerId(f"peer-{i}")) for i in range(count)]
        for host in hosts[1:]:
            await host.connect((await hosts[0].addresses())[0])
        yield network, [CallingNode(host, await stack.enter_async_context(open_streams(host))) for host in hosts]
