"""`Network`: a host with the three facilities on top of it, the one thing the rest of a peer talks to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from iota_p2p.network.gossip import Gossip
from iota_p2p.network.host import Host
from iota_p2p.network.offences import OffenceLedger
from iota_p2p.network.rendezvous import Rendezvous
from iota_p2p.network.streams import Streams, open_streams
from iota_p2p.network.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Network:
    """How a peer reaches others.

    Attributes:
        host: the libp2p node below; connections and addresses.
        rendezvous: who is there, by key.
        gossip: small signed facts for everybody.
        streams: requests to one peer.
        ledger: who broke which rule; whoever breaks too many is refused for a while.
    """

    host: Host
    rendezvous: Rendezvous
    gossip: Gossip
    streams: Streams
    ledger: OffenceLedger

    @property
    def traffic(self) -> Traffic:
        """Bytes of control traffic we sent."""
        return self.streams.traffic


@asynccontextmanager
async def open_network(host: Host, run_id: bytes) -> AsyncIterator[Network]:
    """Put the facilities on a host for as long as the context lasts."""
    ledger = OffenceLedger()
    async with open_streams(host, ledger=ledger) as streams:
        yield Network(host, Rendezvous(host, run_id), Gossip(host, run_id, ledger, streams.traffic), streams, ledger)
