"""Peers that provide under a purpose and epoch are found by it, and by nothing else."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryHost, open_memory_network
from iota_p2p.network.rendezvous import Rendezvous
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.rendezvous import key

RUN = bytes(32)


async def connect(hosts: list[MemoryHost]) -> None:
    for host in hosts[1:]:
        await host.connect((await hosts[0].addresses())[0])


def test_key__differs__for_another_run_purpose_or_epoch() -> None:
    keys = {key(RUN, "stage-1", 0), key(b"\1" * 32, "stage-1", 0), key(RUN, "stage-2", 0), key(RUN, "stage-1", 1)}
    assert len(keys) == 4
    assert {len(each) for each in keys} == {32}


async def test_provided__is_found__up_to_the_limit(autojump_clock: MockClock) -> None:
    async with open_memory_network(1, LinkModel()) as network, trio.open_nursery() as nursery:
        hosts = [network.host(PeerId(f"peer-{i}")) for i in range(5)]
        await connect(hosts)

        async def provide(host: MemoryHost) -> None:
            async with Rendezvous(host, RUN).provided("stage-1", 7):
                await trio.sleep_forever()

        for host in hosts[:3]:
            nursery.start_soon(provide, host)
        await trio.sleep(1)
        rendezvous = Rendezvous(hosts[4], RUN)
        assert set(await rendezvous.find("stage-1", 7, limit=10)) == {host.peer_id for host in hosts[:3]}
        assert len(await rendezvous.find("stage-1", 7, limit=2)) == 2
        assert await rendezvous.find("stage-1", 8, limit=10) == []
        nursery.cancel_scope.cancel()


async def test_provided__is_found_again__after_all_who_kept_it_left(autojump_clock: MockClock) -> None:
    async with open_memory_network(1, LinkModel()) as network:
        hosts = [network.host(PeerId(f"peer-{i}")) for i in range(60)]
        await connect(hosts)
        async with Rendezvous(hosts[0], RUN).provided("members", 0):
            await trio.sleep(1)
            for host in hosts[1:50]:
                network.crash(host.peer_id)
            network.crash(hosts[0].peer_id)
            hosts[0].restart()
            await trio.sleep(20 * 60)
            assert await Rendezvous(hosts[55], RUN).find("members", 0, limit=5) == [hosts[0].peer_id]


async def test_provided__waits_for_company__when_alone(autojump_clock: MockClock) -> None:
    async with open_memory_network(1, LinkModel()) as network:
        first, second = network.host(PeerId("first")), network.host(PeerId("second"))
        async with Rendezvous(first, RUN).provided("members", 0):
            await trio.sleep(60)
            with pytest.raises(PeerUnavailableError):
                await Rendezvous(second, RUN).find("members", 0, limit=5)
            await connect([first, second])
            await trio.sleep(10)
            assert await Rendezvous(second, RUN).find("members", 0, limit=5) == ["first"]
