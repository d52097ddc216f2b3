"""What comes out of a subscription has passed the rules, and who broke one is charged."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.gossip import Gossip
from iota_p2p.network.link import LinkModel
from iota_p2p.network.memory import MemoryHost, open_memory_network
from iota_p2p.network.offences import MAX_OFFENCES
from iota_p2p_crypto.errors import LocalProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import IgnoreError, RejectError
from iota_p2p_protocols.gossip import MAX_AUTHORS, SEEN_PER_AUTHOR, RateLimit, Seen
from iota_p2p_protocols.ids import TopicSpec

RUN = bytes(32)
TOPIC = TopicSpec(name="test", version=1, max_bytes=100, messages_per_minute=60, burst=5)
ALICE, BOB = PeerId("alice"), PeerId("bob")


def validate(data: bytes, author: PeerId) -> str:
    if data.startswith(b"ignore"):
        raise IgnoreError("test-ignore", "of no use")
    if data.startswith(b"reject"):
        raise RejectError("test-reject", "wrong")
    return data.decode()


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[MemoryHost, MemoryHost]]:
    async with open_memory_network(1, LinkModel()) as network:
        alice, bob = network.host(ALICE), network.host(BOB)
        await alice.connect((await bob.addresses())[0])
        yield alice, bob


async def say(host: MemoryHost, *messages: bytes) -> None:
    for data in messages:
        await host.publish(TOPIC.full_name(RUN), data)
        await trio.sleep(0.1)  # in order


async def test_subscription__yields_values__of_accepted_messages(autojump_clock: MockClock) -> None:
    async with two_hosts() as (alice, bob):
        gossip = Gossip(bob, RUN)
        async with gossip.subscribe(TOPIC, validate) as values:
            await Gossip(alice, RUN).publish(TOPIC, b"one")
            assert await anext(values) == "one"


async def test_subscription__hears_nothing__of_another_run(autojump_clock: MockClock) -> None:
    async with two_hosts() as (alice, bob), Gossip(bob, RUN).subscribe(TOPIC, validate) as values:
        await Gossip(alice, b"\1" * 32).publish(TOPIC, b"one")
        with trio.move_on_after(60) as scope:
            await anext(values)
        assert scope.cancelled_caught


async def test_ignore__costs_nothing__and_reject_is_charged(autojump_clock: MockClock) -> None:
    async with two_hosts() as (alice, bob):
        gossip = Gossip(bob, RUN)
        async with gossip.subscribe(TOPIC, validate) as values:
            await say(alice, b"ignore", b"reject", b"good")
            assert await anext(values) == "good"
        assert gossip.ledger.counts(ALICE) == {"test-reject": 1}


async def test_repetition__is_ignored(autojump_clock: MockClock) -> None:
    async with two_hosts() as (alice, bob):
        gossip = Gossip(bob, RUN)
        async with gossip.subscribe(TOPIC, validate) as values:
            await say(alice, b"one", b"one", b"two")
            assert [await anext(values), await anext(values)] == ["one", "two"]
        assert gossip.ledger.counts(ALICE) == {}


async def test_oversized__is_charged__before_it_is_remembered(autojump_clock: MockClock) -> None:
    async with two_hosts() as (alice, bob):
        gossip = Gossip(bob, RUN)
        async with gossip.subscribe(TOPIC, validate) as values:
            await say(alice, bytes(101), b"good")
            assert await anext(values) == "good"
        assert gossip.ledger.counts(ALICE) == {"gossip-size": 1}


async def test_oversized__is_our_bug__when_we_publish(autojump_clock: MockClock) -> None:
    async with two_hosts() as (alice, _):
        with pytest.raises(LocalProtocolError):
            await Gossip(alice, RUN).publish(TOPIC, bytes(101))


async def test_flood__is_cut_to_the_burst_and_its_author_refused(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    async with two_hosts() as (alice, bob):
        gossip = Gossip(bob, RUN)
        async with gossip.subscribe(TOPIC, validate) as values:
            async with trio.open_nursery() as flood:
                for number in range(100):
                    flood.start_soon(alice.publish, TOPIC.full_name(RUN), str(number).encode())
            with trio.move_on_after(10):
                while True:
                    heard.append(await anext(values))
        # The first offences are all but forgiven by the time of the last.
        assert gossip.ledger.counts(ALICE)["gossip-rate"] in range(MAX_OFFENCES, MAX_OFFENCES + 2)
        assert len(heard) == TOPIC.burst
        assert gossip.ledger.refuses(ALICE)
        await trio.sleep(60)
        assert not gossip.ledger.refuses(ALICE)


def test_seen__keeps_an_authors_messages__whatever_another_sends() -> None:
    seen = Seen()
    assert seen.add(ALICE, b"mine")
    for number in range(10 * SEEN_PER_AUTHOR):
        seen.add(BOB, str(number).encode())
    assert not seen.add(ALICE, b"mine")
    assert seen.add(BOB, b"0")


def test_seen__is_bounded() -> None:
    seen = Seen()
    for number in range(MAX_AUTHORS + 10):
        seen.add(PeerId(str(number)), b"")
    assert len(seen._digests) == MAX_AUTHORS


def test_rate_limit__refills_to_its_burst() -> None:
    rate = RateLimit(per_minute=60, burst=2)
    assert [rate.allow(ALICE, 0.0) for _ in range(3)] == [True, True, False]
    assert rate.allow(BOB, 0.0)
    assert rate.allow(ALICE, 1.0)
    assert not rate.allow(ALICE, 1.5)
    assert [rate.allow(ALICE, 1000.0) for _ in range(3)] == [True, True, False]
