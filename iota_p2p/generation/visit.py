"""A visit to a network: with a throw-away identity, to find its run and who holds its stages, and to join nothing."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from iota_p2p.generation.remote_model import RemoteModel
from iota_p2p.membership.exchange import ViewExchange
from iota_p2p.membership.intake import Intake
from iota_p2p.membership.member import Member
from iota_p2p.network.daemon import open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.host import Host
from iota_p2p.network.multiaddr import PeerAddress
from iota_p2p.network.network import open_network
from iota_p2p.run.discovery import discover_run
from iota_p2p.run.spec import RunSpec
from iota_p2p.training.routes import Routes
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError, RemoteProtocolError, UserError
from iota_p2p_crypto.identity import SEED_BYTES, Identity, PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.view import View

CONNECT_TIMEOUT_S = 5.0  # per address: of several some lead nowhere from here


@asynccontextmanager
async def visit_network(bootstrap: Sequence[str], timeout_s: float) -> AsyncIterator[RemoteModel]:
    """Return the current model of the network that these peers belong to.

    Raises:
        UserError: if a bootstrap address is none.
        PeerUnavailableError: if none answers in time, the network has no run, or nobody holds one of its stages.
    """
    for address in bootstrap:
        try:
            PeerAddress.parse(address)
        except MalformedError as error:
            raise UserError(f"{address} is not the full address of a peer: {error}") from error
    identity = Identity.from_seed(secrets.token_bytes(SEED_BYTES))
    async with open_daemon_host(identity, DaemonConfig(listen=("/ip4/127.0.0.1/tcp/0",))) as host:
        spec = await _find_run(host, bootstrap, timeout_s)
        async with open_network(host, spec.run_id) as network:
            member = Member(identity, spec.run_id, time.time, network, View(identity.peer_id), seed=0)
            visitor = Visitor(host, ViewExchange(member, Intake(member)), bootstrap, spec.model.num_stages)
            with trio.move_on_after(timeout_s):
                await visitor.find_replicas()  # now, so that a network that cannot answer is told at once
            yield RemoteModel(spec, network.streams, visitor.find_replicas, timeout_s)


async def _find_run(host: Host, bootstrap: Sequence[str], timeout_s: float) -> RunSpec:
    reasons: dict[str, str] = {}
    with trio.move_on_after(timeout_s):
        found = await discover_run(host, bootstrap, None, reasons.__setitem__)
        if found is None:
            raise PeerUnavailableError("this network trains no run: there is no model to ask")
        return found[0]
    told = "; ".join(f"{address}: {reason}" for address, reason in reasons.items())
    raise PeerUnavailableError(f"no peer answered: {told or f'no answer within {timeout_s:.0f} s'}")


@dataclass(slots=True)
class Visitor:
    """Finds out who holds what.

    Attributes:
        host: our node.
        exchange: compares our view, which begins empty, with others'.
        bootstrap: whom to ask first.
        num_stages: in the run.
    """

    host: Host
    exchange: ViewExchange
    bootstrap: Sequence[str]
    num_stages: int

    async def find_replicas(self) -> Sequence[PeerId]:
        """Return those holders of stage 0 that we can connect to.

        Raises:
            PeerUnavailableError: if there are none, or nobody holds one of the other stages.
        """
        await self._update_view()
        member = self.exchange.member
        view = member.view
        view.forget_expired(member.clock())
        routes = Routes(view)
        missing = [str(stage) for stage in range(self.num_stages) if not routes.replicas(stage)]
        if missing:
            which = f"stage {missing[0]}" if len(missing) == 1 else f"stages {', '.join(missing)}"
            raise PeerUnavailableError(
                f"nobody serves {which} of {self.num_stages} now (live peers: {len(view.live())})"
            )
        found = [peer_id for peer_id in routes.replicas(0) if await self._connect(peer_id)]
        if not found:
            raise PeerUnavailableError(f"none of the {len(routes.replicas(0))} holders of stage 0 can be reached")
        return found

    async def _update_view(self) -> None:
        """Take the view of a peer that answers: of a bootstrap peer, or of any that we know by now."""
        reasons = []
        known = self.exchange.member.view.live()
        for address in self.bootstrap:
            try:
                with trio.fail_after(CONNECT_TIMEOUT_S):
                    known = (await self.host.connect(address), *known)
            except (PeerUnavailableError, trio.TooSlowError) as error:
                reasons.append(f"{address}: {error}")
        for peer_id in known:
            try:
                with trio.fail_after(CONNECT_TIMEOUT_S):
                    await self.exchange.run_with(peer_id)
            except (PeerUnavailableError, RefusedError, RemoteProtocolError, trio.TooSlowError) as error:
                reasons.append(f"{peer_id}: {error}")
            else:
                return
        raise PeerUnavailableError("no peer tells who is there: " + "; ".join(reasons))

    async def _connect(self, peer_id: PeerId) -> bool:
        advert = self.exchange.member.view.advert_of(peer_id)
        for address in () if advert is None else advert.addresses:
            with trio.move_on_after(CONNECT_TIMEOUT_S):
                try:
                    return await self.host.connect(address) == peer_id
                except (PeerUnavailableError, MalformedError):
                    continue
        return False
