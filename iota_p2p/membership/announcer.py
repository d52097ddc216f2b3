"""What we say of ourselves: one advert, published again when it changes, ages or is doubted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p.membership.member import Member, open_recent
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_protocols.advert import LIFETIME_S, MAX_ADDRESSES, REFRESH_S, Advert, Capacity, Reachability, StageOffer
from iota_p2p_protocols.ids import ADVERTS, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from iota_p2p_protocols.message import seal_message

SOFTWARE = "iota-p2p/0.1.0"
# A new member's first publication may come before the gossip mesh has formed around it (a second or so).
REPEATS_AFTER_S = (3.0,)
# Doubts are answered at once, but not more often than this: a liar must not make us flood the network.
MIN_REFUTE_INTERVAL_S = 2.0
# GossipSub cannot be reached for a moment when the daemon restarts.
RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfDescription:
    """The part of our advert that we choose; the rest is filled in when it is signed.

    Attributes:
        addresses: full multiaddresses at which others reach us.
        reachability: how, as far as we know.
        relay: whether we relay for others.
        capacity: what we measured.
        stages: the stages we hold.
    """

    addresses: Sequence[str] = ()
    reachability: Reachability = "unknown"
    relay: bool = False
    capacity: Capacity = field(default_factory=Capacity)
    stages: tuple[StageOffer, ...] = ()


class Announcer:
    """Publishes our advert for as long as `run` runs."""

    def __init__(self, member: Member, description: SelfDescription) -> None:
        self._member = member
        self._description = description
        self._rng = member.rng("announcer")
        self._sequence = 0
        self._latest = b""
        self._changed = trio.Event()
        self._sign()

    @property
    def description(self) -> SelfDescription:
        """What we say of ourselves now."""
        return self._description

    def describe(self, description: SelfDescription) -> None:
        """Say something else from now on; published soon if it differs."""
        if description != self._description:
            self._description = description
            self._changed.set()

    async def run(self) -> None:
        """Publish when we meet somebody, at every change, every REFRESH_S, and when our presence is doubted."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._introduce)
            nursery.start_soon(self._refresh)
            await self._refute()

    async def say_goodbye(self) -> None:
        """Publish a last advert that says we leave."""
        self._sign(leaving=True)
        await self._publish()

    async def _introduce(self) -> None:
        """Publish as soon as there is somebody to hear us, so that nobody has to pass it on in exchanges."""
        await self._member.until(lambda: not self._member.view.is_alone)
        await self._publish()
        for delay_s in REPEATS_AFTER_S:
            await trio.sleep(delay_s)
            await self._publish()

    async def _refresh(self) -> None:
        while True:
            with trio.move_on_after(REFRESH_S * self._rng.uniform(0.8, 1.0)):
                await self._changed.wait()
            self._changed = trio.Event()
            self._sign()
            await self._publish()

    async def _refute(self) -> None:
        view = self._member.view
        while True:
            await self._member.until(lambda: view.is_doubted(view.me))
            self._sign()
            await self._publish()
            await trio.sleep(MIN_REFUTE_INTERVAL_S)

    async def _publish(self) -> None:
        """Publish the latest advert; if the daemon is down, go on trying, as anything newer replaces it."""
        while True:
            try:
                await self._member.network.gossip.publish(ADVERTS, self._latest)
            except PeerUnavailableError:
                await trio.sleep(RETRY_S)
            else:
                return

    def _sign(self, *, leaving: bool = False) -> None:
        """Sign a new advert and put it into our own view."""
        now_s = self._member.clock()
        # The clock in milliseconds grows across restarts without anything kept on disk.
        self._sequence = max(self._sequence + 1, math.floor(now_s * 1000))
        described = self._description
        advert = Advert(
            run_id=self._member.run_id,
            sequence=self._sequence,
            issued_s=math.floor(now_s),
            expires_s=math.floor(now_s) + LIFETIME_S,
            addresses=tuple(described.addresses[:MAX_ADDRESSES]),
            reachability=described.reachability,
            relay=described.relay,
            oldest_version=OLDEST_PROTOCOL_VERSION,
            newest_version=PROTOCOL_VERSION,
            software=SOFTWARE,
            capacity=described.capacity,
            stages=described.stages,
            leaving=leaving,
        )
        self._latest = seal_message(advert, self._member.identity)
        self._member.view.receive_advert(open_recent(self._latest, Advert))
        self._member.note_changes()
