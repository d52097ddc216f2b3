"""A peer behind address translation, reached through a relay: real processes in network namespaces of our own."""

import json

import pytest

from tests.net.namespaces import HOME_IP, PUBLIC_IP, missing, open_topology
from tests.net.peer_processes import PeerProcess, Swarm, open_swarm

pytestmark = [pytest.mark.net, pytest.mark.slow]


async def rows_seen_from(swarm: Swarm, prefix: tuple[str, ...], address: str) -> dict[str, dict[str, object]]:
    status, output, errors = await swarm.run("peers", "--bootstrap", address, "--json", prefix=prefix)
    assert status == 0, errors
    return {row["peer_id"]: row for row in json.loads(output)["peers"]}


def address_at(peer: PeerProcess, ip: str) -> str:
    return next(
        str(event["address"])
        for event in peer.events
        if event["event"] == "address" and str(event["address"]).startswith(f"/ip4/{ip}/")
    )


async def test_peer_behind_nat__reached_through_the_relay() -> None:
    """A stranger outside, who cannot dial it, greets it and reads its view through the relay."""
    lacking = missing()
    if lacking:
        pytest.skip(lacking)
    async with open_topology() as net, open_swarm() as swarm:
        anywhere = ("--listen", "/ip4/0.0.0.0/tcp/0")
        relay = await swarm.start("relay", "--relay", *anywhere, prefix=net.public.prefix)
        entrance = address_at(relay, PUBLIC_IP)
        home = await swarm.start(
            "home", "--reachability", "private", *anywhere, bootstrap=[entrance], prefix=net.home.prefix
        )
        await home.hears(lambda events: any("/p2p-circuit" in event.get("address", "") for event in events), 90)
        rows = await rows_seen_from(swarm, net.public.prefix, entrance)
        assert rows[relay.peer_id]["relay"] is True
        row = rows[home.peer_id]
        assert row["reachability"] == "relayed"
        addresses = row["addresses"]
        assert isinstance(addresses, list)
        circuit = next(address for address in addresses if "/p2p-circuit" in address and PUBLIC_IP in address)
        assert relay.peer_id in circuit
        direct = address_at(home, HOME_IP)
        status, _, _ = await swarm.run("peers", "--bootstrap", direct, "--timeout", "5", prefix=net.public.prefix)
        assert status == 1  # nobody outside can dial it
        assert home.peer_id in await rows_seen_from(swarm, net.public.prefix, circuit)
