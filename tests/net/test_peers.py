"""`iota-p2p peer` and `iota-p2p peers` as separate processes on loopback, and what survives when some of them die."""

import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

from iota_p2p.membership.announcer import SOFTWARE
from iota_p2p.membership.exchange import ViewExchange
from iota_p2p.membership.greeting import Greeting
from iota_p2p.membership.intake import Intake
from iota_p2p.membership.member import Member
from iota_p2p.network.daemon import open_daemon_host
from iota_p2p.network.network import Network, open_network
from iota_p2p.network.streams import Request
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.ids import NO_RUN, WATCH
from iota_p2p_protocols.view import View
from tests.net.daemons import LOOPBACK, identity
from tests.net.peer_processes import Event, PeerProcess, open_swarm

pytestmark = pytest.mark.net

NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/" + identity(99).peer_id


@asynccontextmanager
async def visitor(peer: PeerProcess) -> AsyncGenerator[Network, None]:
    """A network of our own that is connected to a peer and belongs to no swarm."""
    async with open_daemon_host(identity(50), LOOPBACK) as host, open_network(host, NO_RUN) as network:
        await host.connect(peer.address)
        yield network


async def test_nine_peers__see_each_other_and_outlive_their_bootstrap_peer() -> None:
    async with open_swarm() as swarm:
        first = await swarm.start("first")
        async with trio.open_nursery() as nursery:
            for number in range(7):
                nursery.start_soon(partial(swarm.start, f"peer{number}", bootstrap=[first.address]))
        for peer in swarm.peers:
            await peer.sees(8)
        everybody = {peer.peer_id for peer in swarm.peers}
        assert await swarm.roll(first.address) == everybody
        first.process.kill()
        others = [peer for peer in swarm.peers if peer is not first]
        for peer in others:
            await peer.sees(7)
        ninth = await swarm.start("ninth", bootstrap=[first.address, others[3].address])
        for peer in (*others, ninth):
            await peer.sees(8)
            assert peer is ninth or knows(peer.events, ninth)
        assert await swarm.roll(ninth.address) == everybody - {first.peer_id} | {ninth.peer_id}


def knows(events: Sequence[Event], peer: PeerProcess) -> bool:
    return any(event["event"] == "joined" and event["peer_id"] == peer.peer_id for event in events)


async def test_killed_daemon__is_whole_again_within_five_seconds_and_hangs_no_request() -> None:
    """Whole: it answers whoever had to do with it, lists the others, and is listed by them (docs/network.md)."""
    async with open_swarm() as swarm:
        one = await swarm.start("one")
        peer_id = PeerId(one.peer_id)
        async with visitor(one) as network, trio.open_nursery() as nursery:
            greeting = Greeting(network.streams, NO_RUN, SOFTWARE, time.time)
            await greeting.greet(peer_id)  # long before the kill: a daemon's connections are noted when they are used
            two = await swarm.start("two", bootstrap=[one.address])
            everybody = {one.peer_id, two.peer_id}
            for peer in (one, two):
                await peer.sees(2)
                await network.host.connect(peer.address)
                assert await roll_or_nothing(network, peer) == everybody
            broken = trio.Event()

            async def hold_a_request() -> None:
                with pytest.raises(PeerUnavailableError):
                    await network.streams.call(peer_id, WATCH, Request({}))
                broken.set()

            nursery.start_soon(hold_a_request)
            await trio.testing.wait_all_tasks_blocked(0.2)
            old_pid = one.daemon_pid()
            os.kill(old_pid, signal.SIGKILL)
            with trio.fail_after(5):
                await broken.wait()
                for peer in (one, two):
                    while await roll_or_nothing(network, peer) != everybody:  # noqa: ASYNC110 - another process
                        await trio.sleep(0.02)
                await greeting.greet(peer_id)
            assert one.daemon_pid() != old_pid


async def roll_or_nothing(network: Network, peer: PeerProcess) -> set[PeerId]:
    """Return whom a peer believes live; nobody while its daemon is down. Starts no process: that is slow."""
    member = Member(identity(50), NO_RUN, time.time, network, View(identity(50).peer_id), seed=0)
    with trio.move_on_after(2), suppress(PeerUnavailableError):  # an answer or an error, but no hanging
        await network.host.connect(peer.address)
        await ViewExchange(member, Intake(member)).run_with(PeerId(peer.peer_id))
    return set(member.view.live())


async def test_restarted_peer__comes_back_through_its_address_book_when_the_bootstrap_peer_is_gone() -> None:
    async with open_swarm() as swarm:
        first = await swarm.start("first")
        other = await swarm.start("other", bootstrap=[first.address])
        peer = await swarm.start("peer", bootstrap=[first.address])
        await peer.sees(3)
        await other.sees(3)
        assert await peer.stop() == 130
        assert await first.stop() == 130
        await other.sees(1)
        again = await swarm.start("peer", bootstrap=[first.address])
        assert again.peer_id == peer.peer_id
        await again.sees(2)
        await other.sees(2)


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_peer__says_goodbye_and_exits_130_within_three_seconds(stop_signal: signal.Signals) -> None:
    async with open_swarm() as swarm:
        one = await swarm.start("one")
        two = await swarm.start("two", bootstrap=[one.address])
        await one.sees(2)
        await two.sees(2)
        assert await one.stop(stop_signal, within_s=3) == 130
        await two.sees(1, timeout_s=2)
        assert one.events[-1]["event"] == "stopping"
        assert one.errors == b""


async def test_stopped_peer__waits_for_no_daemon_that_hangs() -> None:
    async with open_swarm() as swarm:
        peer = await swarm.start("peer")
        os.kill(peer.daemon_pid(), signal.SIGSTOP)
        assert await peer.stop(within_s=3) == 130


# A peer that computes for a minute in a thread that cannot be cancelled.
DEAF = """
import time, trio
from iota_p2p import peer_process
peer_process._report = lambda *_: trio.to_thread.run_sync(time.sleep, 60)
from iota_p2p.cli.main import main
main()
"""


async def test_stopped_peer__waits_for_no_thread_that_computes() -> None:
    async with open_swarm() as swarm:
        peer = await swarm.start("home", command=(sys.executable, "-c", DEAF))
        assert await peer.stop(within_s=3) == 130
        assert peer.events[-1]["event"] != "stopping", "it could leave in good order: nothing was in its way"
        again = await swarm.start("home")  # the home is free; it sweeps away the folder of the first one's sockets
        assert again.peer_id == peer.peer_id


async def test_stopped_peer__takes_nothing_apart_that_it_has_imported() -> None:
    """Ctrl-C while torch is being imported, or just after: neither is waited for."""
    async with open_swarm() as swarm:
        first = await swarm.start("first")
        for pause_s in (0.0, 0.5, 2.0):
            peer = await swarm.start("peer", bootstrap=[first.address])
            await trio.sleep(pause_s)
            assert await peer.stop(within_s=3) == 130
            assert peer.errors == b""


async def test_second_peer_in_one_home__refused_in_one_line() -> None:
    async with open_swarm() as swarm:
        peer = await swarm.start("home")
        status, output, errors = await swarm.run("peer", "--home", str(peer.home))
        assert (status, output) == (2, "")
        assert errors == (
            f"iota-p2p: another peer is running in {peer.home}: stop it, or give this one its own --home\n"
        )


async def test_peers__says_why_in_one_line_when_nobody_answers() -> None:
    async with open_swarm() as swarm:
        status, output, errors = await swarm.run("peers", "--bootstrap", NOBODY)
        assert (status, output) == (1, "")
        assert errors.startswith(f"iota-p2p: no peer answered: {NOBODY}: ")
        assert "connection refused" in errors
        assert errors.count("\n") == 1


async def test_peers__usage_error_when_the_address_is_none() -> None:
    async with open_swarm() as swarm:
        status, output, errors = await swarm.run("peers", "--bootstrap", "localhost:4001")
        assert (status, output) == (2, "")
        assert errors.count("\n") == 1


async def test_peer__says_why_it_cannot_join_and_goes_on_trying() -> None:
    async with open_swarm() as swarm:
        peer = await swarm.start("peer", bootstrap=[NOBODY])
        await peer.hears(lambda events: any(event["event"] == "unreachable" for event in events))
        event = next(event for event in peer.events if event["event"] == "unreachable")
        assert event["candidate"] == NOBODY
        assert "connection refused" in str(event["reason"])
        assert "\n" not in str(event["reason"])
