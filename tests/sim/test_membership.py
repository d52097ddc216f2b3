"""Whole peers on the simulated network: who is there, who left, who died, who is slandered."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from math import floor
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.membership.watcher import MAX_WATCHERS
from iota_p2p.network.host import HostStream
from iota_p2p.network.memory import MemoryHost, MemoryNetwork, open_memory_network
from iota_p2p.network.network import Network, open_network
from iota_p2p.network.streams import Request, Response
from iota_p2p.peer import LOOK_AT_OURSELVES_S, Peer, PeerConfig, open_peer
from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import TREE_HEAD
from iota_p2p_crypto.envelope import seal
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import LIFETIME_S
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.hello import Hello
from iota_p2p_protocols.ids import ABSENCES, ADVERTS, HELLO, NO_RUN, PROTOCOLS, VIEW, WATCH, ProtocolSpec
from iota_p2p_protocols.message import seal_message
from iota_p2p_testnet.simulation import Swarm, identity_of, open_swarm, virtual_clock
from tests.core.members import OTHER_RUN, RUN, absence_by, advert_of

SEED = 5
HUNG_S = 300  # of 15 seeds the median was 67 s, the longest 187 s
FUTURE = Hello(oldest_version=2, newest_version=3, run_id=NO_RUN, software="future/1", clock_ms=0)


async def until(condition: Callable[[], object], within_s: float, step_s: float = 0.05) -> None:
    """Wait for a condition; fail if it takes longer."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - a view changes by itself, and time is virtual
            await trio.sleep(step_s)


@asynccontextmanager
async def swarm_of(size: int, seed: int = SEED) -> AsyncIterator[tuple[Swarm, Sequence[Peer]]]:
    """Run a swarm whose peers all joined through the first."""
    async with open_swarm(seed) as swarm:
        first = await swarm.start(0, ())
        peers = [first, *[await swarm.start(number, [first.identity.peer_id]) for number in range(1, size)]]
        await until(lambda: swarm.agreement() == 1, 20)
        await trio.sleep(20)  # lines to the watched are up, first exchanges are over
        assert swarm.agreement() == 1
        yield swarm, peers


def believers(peers: Sequence[Peer], subject: PeerId) -> set[PeerId]:
    return {peer.identity.peer_id for peer in peers if peer.view.is_live(subject)}


async def test_join__reaches_everybody_through_one_bootstrap_peer(autojump_clock: MockClock) -> None:
    async with open_swarm(SEED) as swarm:
        first = await swarm.start(0, ())
        for number in range(1, 10):
            await swarm.start(number, [first.identity.peer_id])
        await until(lambda: swarm.agreement() == 1, 10)
        assert len({peer.view.fingerprint for peer in swarm.peers.values()}) == 1


async def test_graceful_leave__is_seen_within_two_seconds(autojump_clock: MockClock) -> None:
    async with swarm_of(8) as (swarm, peers):
        *stay, leaver = peers
        await swarm.stop(leaver.identity.peer_id)
        await until(lambda: not believers(stay, leaver.identity.peer_id), 1)  # stop() itself took one second
        adverts = [peer.view.advert_of(leaver.identity.peer_id) for peer in stay]
        assert all(advert is not None and advert.leaving for advert in adverts)


@pytest.mark.parametrize("seed", range(4))
async def test_crash__is_seen_by_all_within_three_seconds(autojump_clock: MockClock, seed: int) -> None:
    """It takes 1.9 s at most: whoever waits for a chance exchange waits ten times as long."""
    async with swarm_of(8, seed) as (swarm, peers):
        *stay, victim = peers
        swarm.crash(victim.identity.peer_id)
        await until(lambda: not believers(stay, victim.identity.peer_id), 3)
        assert swarm.agreement() == 1


async def test_crash_of_several_at_once__is_seen(autojump_clock: MockClock) -> None:
    async with swarm_of(10) as (swarm, peers):
        for victim in peers[6:]:
            swarm.crash(victim.identity.peer_id)
        await until(lambda: swarm.agreement() == 1, 10)


async def test_hung_peer__is_declared_absent(autojump_clock: MockClock) -> None:
    """One that was there once, and whose node still takes every stream, but behind which nobody answers."""

    async def hang(_stream: HostStream) -> None:
        await trio.sleep_forever()

    async with swarm_of(6) as (swarm, peers):
        zombie = identity_of(SEED, 99)
        host = swarm.network.host(zombie.peer_id)
        for spec in PROTOCOLS:
            await host.handle(spec.id, hang)
        await host.connect(address_of(0))
        now_s = floor(virtual_clock())
        advert = advert_of(zombie, run_id=NO_RUN, issued_s=now_s, expires_s=now_s + LIFETIME_S)
        await host.publish(ADVERTS.full_name(NO_RUN), advert)
        await until(lambda: len(believers(peers, zombie.peer_id)) == len(peers), 5)
        await until(lambda: not believers(peers, zombie.peer_id), HUNG_S)


async def test_false_accusation_by_two__is_refuted_within_seconds(autojump_clock: MockClock) -> None:
    async with swarm_of(8) as (_, peers):
        first, second, victim, *others = peers
        victim_id = victim.identity.peer_id
        advert = victim.view.advert_of(victim_id)
        assert advert is not None
        for liar in (first, second):
            await slander(liar, victim_id, advert.sequence)
        await until(lambda: not believers(others[:1], victim_id), 1, step_s=0.001)  # the lie works at first
        await until(lambda: len(believers(peers, victim_id)) == len(peers), 3)


async def slander(liar: Peer, subject: PeerId, advert_sequence: int) -> None:
    now_s = floor(virtual_clock())
    absence = Absence(
        run_id=NO_RUN,
        sequence=1,
        issued_s=now_s,
        expires_s=now_s + LIFETIME_S,
        peer_id=subject,
        advert_sequence=advert_sequence,
    )
    await liar.network.gossip.publish(ABSENCES, seal_message(absence, liar.identity))


async def test_single_accusation__ends_nobody(autojump_clock: MockClock) -> None:
    async with swarm_of(6) as (_, peers):
        liar, victim, *others = peers
        victim_id = victim.identity.peer_id
        advert = victim.view.advert_of(victim_id)
        assert advert is not None
        await slander(liar, victim_id, advert.sequence)
        for _ in range(50):
            assert len(believers(others, victim_id)) == len(others)
            await trio.sleep(0.1)
        refuted = victim.view.advert_of(victim_id)
        assert refuted is not None
        assert refuted.sequence > advert.sequence


async def test_missed_gossip__is_repaired_by_an_exchange(autojump_clock: MockClock) -> None:
    async with swarm_of(5) as (swarm, peers):
        deaf, *others = peers
        with missing_gossip(swarm.network, deaf.identity.peer_id):
            newcomer = await swarm.start(50, [others[1].identity.peer_id])
            await until(lambda: len(believers(others, newcomer.identity.peer_id)) == len(others), 5)
            assert not deaf.view.is_live(newcomer.identity.peer_id)
            await until(lambda: deaf.view.is_live(newcomer.identity.peer_id), 60)


@contextmanager
def missing_gossip(network: MemoryNetwork, *peer_ids: PeerId) -> Iterator[None]:
    """Let no advert reach these peers by gossip."""
    mailboxes = network.mesh._mailboxes[ADVERTS.full_name(NO_RUN)]
    taken = {peer_id: mailboxes.pop(peer_id) for peer_id in peer_ids}
    try:
        yield
    finally:
        mailboxes.update(taken)


async def test_restarted_peer__is_live_again_under_its_old_identity(autojump_clock: MockClock) -> None:
    async with swarm_of(6) as (swarm, peers):
        victim_id = peers[-1].identity.peer_id
        swarm.crash(victim_id)
        await until(lambda: not believers(peers[:-1], victim_id), 10)
        await swarm.start(5, [peers[0].identity.peer_id])
        await until(lambda: swarm.agreement() == 1, 10)


@pytest.mark.parametrize("seed", range(3))
async def test_node_that_is_back_at_once__changes_no_view(autojump_clock: MockClock, seed: int) -> None:
    """As when a daemon is killed and restarted: its peer blames nobody, and nobody has said yet that it is gone."""
    async with swarm_of(8, seed) as (swarm, peers):
        victim = peers[3]
        with down(swarm.network, victim.identity.peer_id):
            await trio.sleep(0.4)
        for _ in range(100):
            assert swarm.agreement() == 1
            assert not any(peer.view.is_doubted(other.identity.peer_id) for peer in peers for other in peers)
            await trio.sleep(0.1)


@pytest.mark.parametrize("seed", range(3))
async def test_node_that_was_down_for_long__blames_nobody_and_refutes_at_once(
    autojump_clock: MockClock, seed: int
) -> None:
    async with swarm_of(8, seed) as (swarm, peers):
        victim, *others = peers
        with down(swarm.network, victim.identity.peer_id):
            await until(lambda: not believers(others, victim.identity.peer_id), 3)
            await trio.sleep(20)
            assert len(victim.view.live()) == len(peers)
        await until(lambda: swarm.agreement() == 1, 2)
        assert not any(peer.view.is_doubted(other.identity.peer_id) for peer in peers for other in others)


@contextmanager
def down(network: MemoryNetwork, peer_id: PeerId) -> Iterator[None]:
    """Let a peer's node be dead, but not the peer."""
    host = network.find(peer_id)
    assert host is not None
    network.crash(peer_id)
    yield
    host.restart()


# What a partner may bring into an exchange


def now_fields(run_id: bytes = NO_RUN) -> dict[str, Any]:
    now_s = floor(virtual_clock())
    return {"run_id": run_id, "issued_s": now_s, "expires_s": now_s + LIFETIME_S}


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        ("run-id", lambda me, _: advert_of(me, **now_fields(RUN))),
        ("signature", lambda me, _: advert_of(me, **now_fields())[:-1] + b"\0"),
        ("absence-self", lambda me, _: absence_by(me, me, **now_fields())),
        ("view-entry-type", lambda me, _: seal(TREE_HEAD, {}, [me])),
        ("lifetime", lambda me, you: absence_by(me, you, **{**now_fields(), "expires_s": 2**40})),
        ("canonical-msgpack", lambda _me, _you: b""),
    ],
)
async def test_entry__is_refused_by_name_and_charged(
    autojump_clock: MockClock, rule: str, make: Callable[[Identity, Identity], bytes]
) -> None:
    async with (
        two_hosts() as (first, second),
        one_peer(first, 0, PeerConfig(seed=SEED)) as peer,
        open_network(second, NO_RUN) as hostile,
    ):
        await second.connect(address_of(0))
        entries = canonical.encode([make(identity_of(SEED, 1), identity_of(SEED, 0))])
        with pytest.raises(RefusedError) as caught:
            await hostile.streams.call(first.peer_id, VIEW, Request({"wanted": ()}, entries))
        assert caught.value.reason == rule
        assert peer.network.ledger.counts(second.peer_id) == {rule: 1}
        assert list(peer.view.known()) == [first.peer_id]


async def test_expired_entry__is_passed_over(autojump_clock: MockClock) -> None:
    async with (
        two_hosts() as (first, second),
        one_peer(first, 0, PeerConfig(seed=SEED)) as peer,
        open_network(second, NO_RUN) as late,
    ):
        await second.connect(address_of(0))
        stale = advert_of(identity_of(SEED, 1), run_id=NO_RUN)
        await late.streams.call(first.peer_id, VIEW, Request({"wanted": ()}, canonical.encode([stale])))
        assert peer.network.ledger.counts(second.peer_id) == {}
        assert list(peer.view.known()) == [first.peer_id]


async def test_watchers__are_so_many_at_a_time(autojump_clock: MockClock) -> None:
    async with (
        two_hosts() as (first, second),
        one_peer(first, 0, PeerConfig(seed=SEED)),
        open_network(second, NO_RUN) as crowd,
        trio.open_nursery() as nursery,
    ):
        await second.connect(address_of(0))
        for _ in range(MAX_WATCHERS):
            nursery.start_soon(crowd.streams.call, first.peer_id, WATCH, Request({}))
        await trio.sleep(1)
        with pytest.raises(RefusedError) as caught:
            await crowd.streams.call(first.peer_id, WATCH, Request({}))
        assert caught.value.reason == "watched-enough"
        nursery.cancel_scope.cancel()


# Who may join, and through whom


@asynccontextmanager
async def one_peer(host: MemoryHost, number: int, config: PeerConfig) -> AsyncIterator[Peer]:
    async with open_peer(identity_of(SEED, number), host, config, virtual_clock) as peer:
        yield peer


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[MemoryHost, MemoryHost]]:
    async with open_memory_network(SEED) as network:
        first, second = (network.host(identity_of(SEED, number).peer_id) for number in range(2))
        yield first, second


def address_of(number: int) -> str:
    return f"/memory/0/p2p/{identity_of(SEED, number).peer_id}"


async def test_peer_of_another_run__is_refused_with_the_reason(autojump_clock: MockClock) -> None:
    async with two_hosts() as (first, second):
        joining = PeerConfig(run_id=OTHER_RUN, bootstrap=[address_of(0)], seed=SEED)
        async with (
            one_peer(first, 0, PeerConfig(run_id=RUN, seed=SEED)) as member,
            one_peer(second, 1, joining) as stranger,
        ):
            await until(lambda: stranger.joiner.failures, 5)
            assert (
                f"expected run {RUN.hex()[:16]}, got {OTHER_RUN.hex()[:16]}" in stranger.joiner.failures[address_of(0)]
            )
            for peer in (member, stranger):
                assert list(peer.view.live()) == [peer.identity.peer_id]


@asynccontextmanager
async def node_of_the_future(host: MemoryHost) -> AsyncIterator[Network]:
    """Run a node that speaks versions 2 to 3 only."""

    async def answer(_peer_id: PeerId, _request: Request) -> Response:
        return Response(FUTURE.to_fields())

    async with open_network(host, NO_RUN) as network:
        await network.streams.serve(HELLO, answer)
        yield network


async def test_peer_of_another_version__is_not_joined_and_the_reason_is_kept(autojump_clock: MockClock) -> None:
    async with two_hosts() as (first, second):
        joining = PeerConfig(bootstrap=[address_of(0)], seed=SEED)
        async with node_of_the_future(first), one_peer(second, 1, joining) as peer:
            await until(lambda: peer.joiner.failures, 5)
            assert peer.joiner.failures[address_of(0)] == "expected a version from 1 to 1, got 2 to 3"
            assert list(peer.view.live()) == [second.peer_id]


async def test_hello_of_another_version__is_refused_with_the_reason(autojump_clock: MockClock) -> None:
    async with (
        two_hosts() as (first, second),
        one_peer(first, 0, PeerConfig(seed=SEED)),
        node_of_the_future(second) as future,
    ):
        await second.connect(address_of(0))
        with pytest.raises(RefusedError, match="expected a version from 1 to 1, got 2 to 3") as caught:
            await future.streams.call(first.peer_id, HELLO, Request(FUTURE.to_fields()))
        assert caught.value.reason == "hello-version"


async def test_lonely_peer__comes_back_through_bootstrap(autojump_clock: MockClock) -> None:
    async with swarm_of(2) as (swarm, (first, second)):
        swarm.crash(first.identity.peer_id)
        await until(lambda: len(second.view.live()) == 1, 30)
        await trio.sleep(60)  # attempts fail and become rarer
        assert address_of(0) in second.joiner.failures
        await swarm.start(0, ())
        await until(lambda: len(second.view.live()) == 2, 20)
        assert address_of(0) not in second.joiner.failures


async def test_lonely_peer__comes_back_through_its_address_book(autojump_clock: MockClock) -> None:
    async with two_hosts() as (first, second):
        remembering = PeerConfig(
            bootstrap=[address_of(77)],  # gone for ever
            remembered={first.peer_id: [address_of(0)]},
            seed=SEED,
        )
        async with one_peer(first, 0, PeerConfig(seed=SEED)), one_peer(second, 1, remembering) as peer:
            await until(lambda: peer.view.is_live(first.peer_id), 10)
            assert set(peer.joiner.failures) == {address_of(77)}


async def test_lonely_peers__find_each_other_by_rendezvous(autojump_clock: MockClock) -> None:
    """The bootstrap node is part of the DHT and of no run."""
    async with open_memory_network(SEED) as network:
        network.host(identity_of(SEED, 0).peer_id)
        first, second = (network.host(identity_of(SEED, number).peer_id) for number in (1, 2))
        config = PeerConfig(bootstrap=[address_of(0)], seed=SEED)
        async with one_peer(first, 1, config) as one, one_peer(second, 2, config) as two:
            with missing_gossip(network, first.peer_id, second.peer_id):
                await until(lambda: len(one.view.live()) == len(two.view.live()) == 2, 30)
            assert address_of(0) in {**one.joiner.failures, **two.joiner.failures}


async def test_candidate_found_once__its_failure_is_forgotten_when_it_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with (
        two_hosts() as (_, second),
        one_peer(second, 1, PeerConfig(bootstrap=[address_of(77)], seed=SEED)) as peer,
    ):
        peer.joiner.failures["found once"] = "was away"
        await until(lambda: set(peer.joiner.failures) == {address_of(77)}, 60)


async def test_bandwidth__measured_on_transfers_and_known_to_others(autojump_clock: MockClock) -> None:
    """Over lines of 12.5 MB/s whose round trips of 0.1 s and windows of 1 MiB leave some 10 of them."""
    spec = ProtocolSpec(id="/test/large/1", max_header_bytes=100, max_payload_bytes=2**24)

    async def answer(_peer_id: PeerId, _request: Request) -> Response:
        return Response({}, bytes(2**24))

    async with swarm_of(2) as (_, (one, two)):
        await one.network.streams.serve(spec, answer)
        await two.network.streams.call(one.identity.peer_id, spec, Request({}))
        await trio.sleep(LOOK_AT_OURSELVES_S + 5)
        receiver = one.view.advert_of(two.identity.peer_id)
        sender = two.view.advert_of(one.identity.peer_id)
    assert receiver is not None
    assert sender is not None
    assert receiver.capacity.download_bytes_per_s == pytest.approx(10e6, rel=0.25)
    assert sender.capacity.upload_bytes_per_s == pytest.approx(10e6, rel=0.25)
