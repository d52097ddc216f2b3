"""Joining: finding somebody, anybody, of the network, and again whenever we find ourselves alone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from iota_p2p.membership.greeting import Greeting
from iota_p2p.membership.membership import Membership
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError, RemoteProtocolError

# One peer has this long to be dialled, greeted and asked for its view.
ATTEMPT_TIMEOUT_S = 10.0
# While alone: between rounds over all candidates, growing to the second figure.
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 15.0
# Remembered and rendezvous peers tried in one round; the bootstrap addresses are always all tried.
MAX_CANDIDATES = 32
MEMBERS_PURPOSE = "members"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Joiner:
    """Keeps us connected to the network.

    Attributes:
        membership: whose view gets filled.
        greeting: checks that we can talk before we do.
        bootstrap: full multiaddresses given by the user.
        remembered: peers from the address book, used when no bootstrap peer answers.
        failures: why the last attempt at each candidate failed, for people; those of the last round only.
    """

    membership: Membership
    greeting: Greeting
    bootstrap: Sequence[str]
    remembered: Mapping[PeerId, Sequence[str]]
    failures: dict[str, str] = field(default_factory=dict)
    _compared: bool = False

    async def run(self) -> None:
        """Join, and join again whenever nobody else is live in our view, until cancelled.

        Hearing another newcomer's advert is not enough: those who announced themselves before we came are known
        from a comparison only.
        """
        rendezvous = self.membership.member.network.rendezvous
        async with rendezvous.provided(MEMBERS_PURPOSE, 0):
            pause_s = FIRST_PAUSE_S
            while True:
                if self._joined:
                    pause_s = FIRST_PAUSE_S
                    await self.membership.member.until(lambda: not self._joined)
                await self._try_everybody()
                with trio.move_on_after(pause_s):
                    await self.membership.member.until(lambda: self._joined)
                pause_s = min(2 * pause_s, LAST_PAUSE_S)

    @property
    def _joined(self) -> bool:
        return self._compared and not self.membership.member.view.is_alone

    async def _try_everybody(self) -> None:
        """Try candidates one after another until one has given us its view; forget why former ones failed."""
        tried = set()
        for address in self._addresses():
            if not self._joined:
                tried.add(address)
                await self._try(address)
        for peer_id in () if self._joined else await self._found():
            if not self._joined:
                tried.add(str(peer_id))
                await self._meet(peer_id, str(peer_id))
        self.failures = {name: reason for name, reason in self.failures.items() if name in tried}

    def _addresses(self) -> Sequence[str]:
        remembered = list(self.remembered.values())[:MAX_CANDIDATES]
        return (*self.bootstrap, *(address for addresses in remembered for address in addresses))

    async def _found(self) -> Sequence[PeerId]:
        """Return the members the DHT knows of; none if it cannot be asked."""
        try:
            with trio.move_on_after(ATTEMPT_TIMEOUT_S):
                found = await self.membership.member.network.rendezvous.find(MEMBERS_PURPOSE, 0, limit=MAX_CANDIDATES)
                return [peer_id for peer_id in found if peer_id != self.membership.member.identity.peer_id]
        except PeerUnavailableError as error:
            _log.info("rendezvous failed", extra={"reason": str(error)})
        return []

    async def _try(self, address: str) -> None:
        try:
            with trio.fail_after(ATTEMPT_TIMEOUT_S):
                peer_id = await self.membership.member.network.host.connect(address)
        except (trio.TooSlowError, PeerUnavailableError) as error:
            self.failures[address] = str(error) or f"no answer within {ATTEMPT_TIMEOUT_S:.0f} s"
            return
        await self._meet(peer_id, address)

    async def _meet(self, peer_id: PeerId, name: str) -> None:
        """Greet a peer and exchange views; a failure is noted under the candidate's name."""
        try:
            with trio.fail_after(ATTEMPT_TIMEOUT_S):
                await self.greeting.greet(peer_id)
                await self.membership.exchange.run_with(peer_id)
            self._compared = True
            self.failures.pop(name, None)
        except (trio.TooSlowError, PeerUnavailableError, RefusedError, RemoteProtocolError) as error:
            self.failures[name] = str(error) or f"no answer within {ATTEMPT_TIMEOUT_S:.0f} s"
