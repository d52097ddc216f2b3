"""Asking one peer for its view, as a stranger who joins nothing."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

import trio

from iota_p2p.membership.announcer import SOFTWARE
from iota_p2p.membership.exchange import ViewExchange
from iota_p2p.membership.greeting import Greeting
from iota_p2p.membership.intake import Intake
from iota_p2p.membership.member import Member
from iota_p2p.network.daemon import open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.host import Host
from iota_p2p.network.multiaddr import PeerAddress
from iota_p2p.network.network import open_network
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError, UserError
from iota_p2p_crypto.identity import SEED_BYTES, Identity, PeerId
from iota_p2p_protocols.ids import NO_RUN
from iota_p2p_protocols.view import View


async def call_roll(bootstrap: Sequence[str], timeout_s: float) -> list[dict[str, Any]]:
    """Return what the first bootstrap peer that answers says of every live peer it knows.

    Raises:
        UserError: if a bootstrap address is none.
        PeerUnavailableError: if none answers in time, with each one's reason.
    """
    for address in bootstrap:
        try:
            PeerAddress.parse(address)
        except MalformedError as error:
            raise UserError(f"{address} is not the full address of a peer: {error}") from error
    identity = Identity.from_seed(secrets.token_bytes(SEED_BYTES))
    config = DaemonConfig(listen=("/ip4/127.0.0.1/tcp/0",))
    reasons = []
    with trio.move_on_after(timeout_s):
        async with open_daemon_host(identity, config) as host:
            for address in bootstrap:
                try:
                    peer_id = await host.connect(address)
                    return describe(await view_of(identity, host, peer_id))
                except PeerUnavailableError as error:
                    reasons.append(f"{address}: {error}")
    reasons = reasons or [f"no answer within {timeout_s:.0f} s"]
    raise PeerUnavailableError("no peer answered: " + "; ".join(reasons))


async def view_of(identity: Identity, host: Host, peer_id: PeerId) -> View:
    """Return the view of a peer we are connected to, every fact in it verified by us."""
    async with open_network(host, NO_RUN) as network:
        greeted = await Greeting(network.streams, NO_RUN, SOFTWARE, time.time).greet(peer_id)
        member = Member(identity, greeted.hello.run_id, time.time, network, View(identity.peer_id), seed=0)
        await ViewExchange(member, Intake(member)).run_with(peer_id)
        return member.view


def describe(view: View) -> list[dict[str, Any]]:
    """Return the live peers of a view, ready for JSON."""
    adverts = {peer_id: view.advert_of(peer_id) for peer_id in view.live()}
    return [
        {
            "peer_id": peer_id,
            "reachability": advert.reachability,
            "relay": advert.relay,
            "addresses": list(advert.addresses),
            "stages": [offer.to_fields() for offer in advert.stages],
            "tokens_per_s": advert.capacity.tokens_per_s,
            "memory_bytes": advert.capacity.memory_bytes,
            "upload_bytes_per_s": advert.capacity.upload_bytes_per_s,
            "download_bytes_per_s": advert.capacity.download_bytes_per_s,
            "load_percent": advert.capacity.load_percent,
            "software": advert.software,
            "versions": [advert.oldest_version, advert.newest_version],
            "expires_s": advert.expires_s,
        }
        for peer_id, advert in sorted(adverts.items())
        if advert is not None
    ]
