"""A running peer: it only puts the parts together."""

import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import SystemRandom

import trio

from iota_p2p.membership.announcer import SOFTWARE, SelfDescription
from iota_p2p.membership.greeting import Greeting
from iota_p2p.membership.joiner import Joiner
from iota_p2p.membership.member import Clock, Member
from iota_p2p.membership.membership import Membership
from iota_p2p.network.dial_back import DialBack
from iota_p2p.network.host import Host
from iota_p2p.network.network import Network, open_network
from iota_p2p.network.traffic import Traffic
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.advert import Capacity, Reachability
from iota_p2p_protocols.errors import PeerUnavailableError
from iota_p2p_protocols.ids import NO_RUN
from iota_p2p_protocols.view import View

# Leaving politely must not hold up Ctrl-C, which promises 3 s for everything.
GOODBYE_TIMEOUT_S = 0.5
# Addresses change rarely: a new network, a relay reserved. Rates and load are looked at as often.
LOOK_AT_OURSELVES_S = 30.0
# Every change is gossiped to everybody: rates count as changed by half, and load by a quarter of a machine.
CHANGED_RATE, CHANGED_LOAD_PERCENT = 1.5, 25


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """What differs from peer to peer.

    Attributes:
        run_id: the run to join; zeros for a network without a run.
        bootstrap: full multiaddresses of peers to join through; none for the first peer of a network.
        remembered: peers known from before.
        relay: whether our host relays for others, so that our advert can say so.
        capacity: what we may carry.
        load_percent: how busy the machine is now, 0 to 100.
        seed: of jitter and choices; None draws one.
    """

    run_id: bytes = NO_RUN
    bootstrap: Sequence[str] = ()
    remembered: Mapping[PeerId, Sequence[str]] = field(default_factory=dict)
    relay: bool = False
    capacity: Capacity = field(default_factory=Capacity)
    load_percent: Callable[[], int] = lambda: 0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that is running; open one with `open_peer`."""

    identity: Identity
    network: Network
    membership: Membership
    joiner: Joiner

    @property
    def view(self) -> View:
        """What this peer believes of the others."""
        return self.membership.member.view

    async def view_changed(self) -> None:
        """Wait for the view to change."""
        await self.membership.member.changed.wait()


@asynccontextmanager
async def open_peer(
    identity: Identity, host: Host, config: PeerConfig, clock: Clock = time.time
) -> AsyncIterator[Peer]:
    """Run a peer on a host for as long as the context lasts; leaving it says goodbye to the others."""
    seed = SystemRandom().getrandbits(64) if config.seed is None else config.seed
    async with open_network(host, config.run_id) as network, trio.open_nursery() as nursery:
        member = Member(identity, config.run_id, clock, network, View(identity.peer_id), seed)
        description = await _describe(host, SelfDescription(relay=config.relay, capacity=config.capacity))
        membership = Membership.of(member, description)
        greeting = Greeting(network.streams, config.run_id, SOFTWARE, clock)
        await greeting.serve()
        await DialBack(host).serve(network.streams)
        await nursery.start(membership.run)
        joiner = Joiner(membership, greeting, config.bootstrap, config.remembered)
        nursery.start_soon(joiner.run)
        nursery.start_soon(_keep_described, network, membership, config.load_percent)
        try:
            yield Peer(identity, network, membership, joiner)
        finally:
            with trio.move_on_after(GOODBYE_TIMEOUT_S, shield=True):
                await membership.announcer.say_goodbye()
            nursery.cancel_scope.cancel()


async def _keep_described(network: Network, membership: Membership, load_percent: Callable[[], int]) -> None:
    while True:
        await trio.sleep(LOOK_AT_OURSELVES_S)
        described = await _describe(network.host, membership.announcer.description)
        capacity = measured_anew(described.capacity, network.traffic, load_percent())
        membership.announcer.describe(replace(described, capacity=capacity))


def measured_anew(capacity: Capacity, traffic: Traffic, load_percent: int) -> Capacity:
    """Return the capacity with what was measured since; what has hardly changed stays as it was said."""
    said = {"upload_bytes_per_s": traffic.upload.bytes_per_s, "download_bytes_per_s": traffic.download.bytes_per_s}
    news = {name: rate for name, rate in said.items() if _has_changed(getattr(capacity, name), rate)}
    if abs(load_percent - capacity.load_percent) >= CHANGED_LOAD_PERCENT:
        news["load_percent"] = load_percent
    return capacity.model_copy(update=news) if news else capacity


def _has_changed(before: int, now: int) -> bool:
    return now > before * CHANGED_RATE or now * CHANGED_RATE < before


async def _describe(host: Host, description: SelfDescription) -> SelfDescription:
    """Return the description with the addresses the host has now, or as it was while the host is down."""
    try:
        addresses = tuple(sorted(await host.addresses(), key=_usefulness))
    except PeerUnavailableError:
        return description
    return replace(description, addresses=addresses, reachability=reachability_of(addresses))


def reachability_of(addresses: Sequence[str]) -> Reachability:
    """Say how a peer with these addresses is reached, as far as they tell."""
    if any(_is_global(address) for address in addresses if "/p2p-circuit" not in address):
        return "public"
    if any("/p2p-circuit" in address for address in addresses):
        return "relayed"
    return "private" if addresses else "unknown"


def _usefulness(address: str) -> tuple[bool, bool, str]:
    """Sort key: the addresses that strangers can use first, loopback last."""
    return ("/127.0.0.1/" in address or "/::1/" in address, not _is_global(address), address)


def _is_global(address: str) -> bool:
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):  # noqa: PLR2004 - "/ip4/<address>/..."
        return len(parts) > 1 and parts[1].startswith("dns")
    try:
        return ipaddress.ip_address(parts[2]).is_global
    except ValueError:
        return False
