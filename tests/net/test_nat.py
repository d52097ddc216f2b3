"""A peer behind address translation finds that out, and is reached through a relay: real processes in namespaces."""

import json

import pytest

from tests.net.namespaces import HOME_IP, PUBLIC_IP, missing, open_topology
from tests.net.peer_processes import PeerProcess, Swarm, open_swarm

pytestmark = [pytest.mark.net, pytest.mark.slow]

ANYWHERE = ("--listen", "/ip4/0.0.0.0/tcp/0")
# AutoNAT asks for the first time after 15 s, and we look at our addresses every 30 s.
RESERVED_WITHIN_S = 150


async def rows_seen_from(swarm: Swarm, prefix: tuple[str, ...], address: str) -> dict[str, dict[str, object]]:
    status, output, errors = await swarm.run("peers", "--bootstrap", address, "--json", prefix=prefix)
    assert status == 0, errors
    return {row["peer_id"]: row for row in json.loads(output)["peers"]}


async def address_at(peer: PeerProcess, ip: str) -> str:
    """Wait until a peer has told its address at an IP address: it tells one after the other."""

    def told() -> list[str]:
        addresses = [str(event["address"]) for event in peer.events if event["event"] == "address"]
        return [address for address in addresses if address.startswith(f"/ip4/{ip}/")]

    await peer.hears(lambda _: bool(told()))
    return told()[0]


async def test_peer_behind_nat__finds_out_and_is_reached_through_a_relay() -> None:
    """Nobody tells it that it is behind a router. A stranger outside reads its view through the relay."""
    lacking = missing()
    if lacking:
        pytest.skip(lacking)
    async with open_topology() as net, open_swarm() as swarm:
        relay = await swarm.start("relay", "--relay", *ANYWHERE, prefix=net.public.prefix)
        entrance = await address_at(relay, PUBLIC_IP)
        home = await swarm.start("home", *ANYWHERE, bootstrap=[entrance], prefix=net.home.prefix)
        await home.hears(
            lambda events: any("/p2p-circuit" in event.get("address", "") for event in events), RESERVED_WITHIN_S
        )
        rows = await rows_seen_from(swarm, net.public.prefix, entrance)
        assert (rows[relay.peer_id]["relay"], rows[relay.peer_id]["reachability"]) == (True, "public")
        row = rows[home.peer_id]
        assert row["reachability"] == "relayed"
        addresses = row["addresses"]
        assert isinstance(addresses, list)
        circuit = next(address for address in addresses if "/p2p-circuit" in address)
        assert circuit.startswith(entrance)
        direct = await address_at(home, HOME_IP)
        status, _, _ = await swarm.run("peers", "--bootstrap", direct, "--timeout", "5", prefix=net.public.prefix)
        assert status == 1  # nobody outside can dial it
        assert home.peer_id in await rows_seen_from(swarm, net.public.prefix, circuit)
