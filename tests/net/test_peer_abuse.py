"""A running peer among peers that break rules: it goes on serving, stays small, and says what it refused."""

import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from iota_p2p.membership.announcer import SOFTWARE
from iota_p2p.membership.greeting import Greeting
from iota_p2p.network.daemon import DaemonHost, open_daemon_host
from iota_p2p.network.multiaddr import PeerAddress
from iota_p2p.network.network import open_network
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.framing import Head, Kind, encode_head
from iota_p2p_protocols.ids import ABSENCES, ADVERTS, HELLO, NO_RUN, PROTOCOLS, TopicSpec
from iota_p2p_protocols.message import seal_message
from tests.net.daemons import LOOPBACK, identity
from tests.net.peer_processes import Event, PeerProcess, open_swarm

pytestmark = pytest.mark.net

ATTACKER = 66
# Go's collector lets its heap double before it works, and Python keeps freed pages.
MAX_GROWTH_KIB = 40_000


@asynccontextmanager
async def attacked_peer() -> AsyncGenerator[tuple[PeerProcess, DaemonHost], None]:
    """A peer, and a host of ours that is connected to it and keeps no rules; at the end the peer must still serve."""
    async with open_swarm() as swarm:
        peer = await swarm.start("peer")
        async with open_daemon_host(identity(ATTACKER), LOOPBACK) as host:
            await host.connect(peer.address)
            yield peer, host
        await serves(peer)
        assert b"Traceback" not in peer.errors


async def serves(peer: PeerProcess) -> None:
    """Greet it as an honest stranger."""
    async with open_daemon_host(identity(7), LOOPBACK) as host, open_network(host, NO_RUN) as network:
        with trio.fail_after(5):
            await host.connect(peer.address)
            await Greeting(network.streams, NO_RUN, SOFTWARE, time.time).greet(PeerId(peer.peer_id))


async def says_refused(peer: PeerProcess, *rules: str) -> None:
    """Wait until it has said that our host broke these rules."""
    offender = identity(ATTACKER).peer_id
    await peer.hears(lambda events: {*rules} <= told_rules(events, offender))
    assert all(event["detail"] and event["count"] for event in peer.events if event["event"] == "refused")


def told_rules(events: Sequence[Event], offender: str) -> set[str]:
    return {event["rule"] for event in events if event["event"] == "refused" and event["peer_id"] == offender}


def memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def sizes(peer: PeerProcess) -> tuple[int, int]:
    """Return the resident memory of the peer and of its daemon."""
    return memory_kib(peer.pid), memory_kib(peer.daemon_pid())


def check_flat(before: tuple[int, int], after: tuple[int, int]) -> None:
    growth = [new - old for old, new in zip(before, after, strict=True)]
    assert max(growth) < MAX_GROWTH_KIB, f"peer and daemon grew by {growth} KiB"


def num_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def test_garbage_on_the_tcp_port__survived_with_flat_memory() -> None:
    async with attacked_peer() as (peer, _):
        port = int(PeerAddress.parse(peer.address).transport.rsplit("/", 1)[1])
        before = sizes(peer)
        garbage = os.urandom(64 * 1024)
        half_open = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(50)]
        for _ in range(50):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(garbage)
            await stream.aclose()
        await serves(peer)  # while the others keep their connections open without a word
        check_flat(before, sizes(peer))
        for stream in half_open:
            await stream.aclose()


def frame(payload_bytes: int) -> bytes:
    return encode_head(Head(Kind.REQUEST, {}, payload_bytes), max_header_bytes=1000, max_payload_bytes=2**40)


async def test_malformed_frames_on_every_protocol__refused_by_name() -> None:
    """Each is charged; a stream that stops inside a frame is a caller that went away, which it may."""
    async with attacked_peer() as (peer, host):
        before = sizes(peer)
        for spec in PROTOCOLS:  # those that nobody serves without a run, too
            for data in (b"\xff" * 8, frame(2**40), frame(0)[:-1], b""):
                with suppress(PeerUnavailableError, trio.BrokenResourceError):
                    outbound = await host.open_stream(PeerId(peer.peer_id), spec.id)
                    async with outbound.stream:
                        await outbound.stream.send_all(data)
                        await outbound.stream.send_eof()
                        with trio.move_on_after(1):
                            await outbound.stream.receive_some()
        await says_refused(peer, "frame-header-size", "frame-payload-size")
        check_flat(before, sizes(peer))


async def test_streams_left_half_open__bounded() -> None:
    """400 streams at once, most with half a header: no more than our share is served, others get theirs."""
    async with attacked_peer() as (peer, host):
        before = sizes(peer)
        opened = []
        for index in range(400):
            with suppress(PeerUnavailableError, trio.BrokenResourceError):
                outbound = await host.open_stream(PeerId(peer.peer_id), HELLO.id)
                opened.append(outbound.stream)
                await outbound.stream.send_all(frame(0)[: index % 3 + 1])
        await serves(peer)
        assert num_files(peer.pid) < 200
        check_flat(before, sizes(peer))
        for stream in opened:
            await stream.aclose()
        assert len(peer.errors) < 10_000


def advert(signer: Identity, *, run_id: bytes = NO_RUN, age_s: int = 0, sequence: int = 1) -> bytes:
    issued_s = int(time.time()) - age_s
    message = Advert(
        run_id=run_id,
        sequence=sequence,
        issued_s=issued_s,
        expires_s=issued_s + 60,
        addresses=(),
        oldest_version=1,
        newest_version=1,
        software="attack",
        stages=(),
    )
    return seal_message(message, signer)


def absence(signer: Identity, of: PeerId, *, run_id: bytes = NO_RUN, age_s: int = 0) -> bytes:
    issued_s = int(time.time()) - age_s
    message = Absence(
        run_id=run_id,
        sequence=1,
        issued_s=issued_s,
        expires_s=issued_s + 60,
        peer_id=of,
        advert_sequence=1,
    )
    return seal_message(message, signer)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


BAD_GOSSIP: dict[str, tuple[TopicSpec, Callable[[Identity, PeerId], bytes]]] = {
    "signature": (ADVERTS, lambda me, _: flipped(advert(me))),
    "run-id": (ADVERTS, lambda me, _: advert(me, run_id=bytes([9]) * 32)),
    "gossip-author": (ADVERTS, lambda _, __: advert(identity(67))),
    "gossip-size": (ADVERTS, lambda _, __: bytes(ADVERTS.max_bytes + 1)),
    "absence-self": (ABSENCES, lambda me, _: absence(me, me.peer_id)),
}


async def test_bad_adverts_and_absences__refused_by_name_and_not_believed() -> None:
    """Forged, replayed, of another run, oversized; expired ones are ignored without a charge."""
    me = identity(ATTACKER)
    async with attacked_peer() as (peer, host):
        subject = PeerId(peer.peer_id)
        ignored = ((ADVERTS, advert(me, age_s=3600)), (ABSENCES, absence(me, subject, age_s=3600)))
        messages = [(topic, make(me, subject)) for topic, make in BAD_GOSSIP.values()]

        async def repeat() -> None:
            while True:  # until GossipSub has built its mesh; the peer knows them again by their digest
                for topic, data in (*ignored, *messages):
                    await host.publish(topic.full_name(NO_RUN), data)
                await trio.sleep(0.3)

        async with (
            host.subscribe(ADVERTS.full_name(NO_RUN)),
            host.subscribe(ABSENCES.full_name(NO_RUN)),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(repeat)
            await says_refused(peer, *BAD_GOSSIP)
            nursery.cancel_scope.cancel()
        assert peer.num_live == 1
        assert told_rules(peer.events, me.peer_id) == {*BAD_GOSSIP}


async def test_flood_of_gossip__told_in_few_lines_with_their_number() -> None:
    me = identity(ATTACKER)
    async with attacked_peer() as (peer, host):
        before = sizes(peer)
        topic = ADVERTS.full_name(NO_RUN)
        async with host.subscribe(topic):
            with trio.move_on_after(8):
                for sequence in range(2000):
                    await host.publish(topic, flipped(advert(me, sequence=sequence)))
            await peer.hears(lambda events: any(event.get("count", 0) > 5 for event in events))
        assert sum(event["event"].startswith("refused") for event in peer.events) < 10
        check_flat(before, sizes(peer))


@pytest.mark.slow
async def test_thousand_streams_and_two_hundred_connections__leak_nothing() -> None:
    async with attacked_peer() as (peer, host):
        peer_id = PeerId(peer.peer_id)

        async def churn(num_streams: int, num_connections: int) -> None:
            for index in range(num_streams):
                outbound = await host.open_stream(peer_id, HELLO.id)
                # Half a frame may be cut off without an answer; and a peer that is behind takes no more than our share.
                async with outbound.stream:
                    with suppress(trio.BrokenResourceError):
                        await outbound.stream.send_all(frame(0)[: 5 if index % 2 else None])
                        if index % 3:
                            await outbound.stream.receive_some()
            for _ in range(num_connections):
                await host.disconnect(peer_id)
                await host.connect(peer.address)

        async def settle(most: int) -> None:
            with trio.fail_after(15):
                while num_files(peer.pid) > most:  # noqa: ASYNC110 - another process sends us no event
                    await trio.sleep(0.1)

        files = num_files(peer.pid)
        await churn(100, 20)
        await settle(files)
        before = sizes(peer)
        with trio.fail_after(120):
            await churn(1000, 200)
        await settle(files)
        check_flat(before, sizes(peer))
