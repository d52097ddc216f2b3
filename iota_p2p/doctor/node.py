"""Checks of our own node on the network: its port, whether others can dial it, its clock, and whether it has a twin."""

import errno
import ipaddress
import sys
from collections.abc import Collection, Mapping, Sequence
from statistics import median_low

import trio

from iota_p2p.doctor.bootstrap import TcpTarget
from iota_p2p.doctor.finding import Finding, Status
from iota_p2p.membership.greeting import Greeted
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.daemon_runs import check_port
from iota_p2p.network.dial_back import ask_dial_back
from iota_p2p.network.dial_probe import identify_listener
from iota_p2p.network.multiaddr import PeerAddress
from iota_p2p.network.streams import Request, Streams
from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import ADVERT
from iota_p2p_crypto.envelope import domain_of
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.dial_back import MAX_PORTS, DialBackAnswer
from iota_p2p_protocols.errors import MalformedError, PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import VIEW
from iota_p2p_protocols.message import MAX_CLOCK_SKEW_S, open_signed
from iota_p2p_protocols.view_exchange import Swap, unpack_entries

# Half of what hides a peer's messages is far; a few seconds already blur its measured times.
GOOD_CLOCK_SKEW_S = 5.0
# One dial of a listed address; the addresses of a twin are tried side by side.
_TWIN_DIAL_S = 4.0


def check_listen(address: str) -> Finding:
    """D201: our address is well-formed and its port is free."""
    try:
        DaemonConfig(listen=(address,))
    except UserError as error:
        return Finding("D201", Status.FAIL, str(error), "write it like --listen /ip4/0.0.0.0/tcp/4001")
    try:
        check_port(address)
    except UserError as error:
        system = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        return Finding("D201", Status.FAIL, str(error), _port_fix(address, system))
    return Finding("D201", Status.OK, address)


def _port_fix(address: str, system: int | None) -> str:
    port = address.split("/")[4]
    if system == errno.EADDRINUSE:
        return f"end what holds it (see 'ss -ltnp sport = :{port}'), or take any free port: --listen /ip4/0.0.0.0/tcp/0"
    if system == errno.EACCES:
        return "take a port above 1023, such as --listen /ip4/0.0.0.0/tcp/4001"
    return "listen on all addresses of this machine: --listen /ip4/0.0.0.0/tcp/" + port


def judge_clock(greetings: Mapping[PeerId, Greeted]) -> Finding:
    """D204: our clock agrees with the median of the peers'."""
    offset_s = median_low(greeted.clock_offset_s for greeted in greetings.values())
    side = "behind" if offset_s > 0 else "ahead of"
    cause = f"our clock is {abs(offset_s):.1f} s {side} that of {_count(greetings)}"
    fix = "run 'sudo timedatectl set-ntp true' on this machine"
    if sys.platform == "darwin":
        fix = "run 'sudo sntp -sS time.apple.com' on this machine"
    if len(greetings) == 1:
        fix += "; if its clock is right, that peer's is wrong: tell its operator"
    if abs(offset_s) > MAX_CLOCK_SKEW_S:
        return Finding("D204", Status.FAIL, f"{cause}: beyond {MAX_CLOCK_SKEW_S} s messages are refused", fix)
    if abs(offset_s) > GOOD_CLOCK_SKEW_S:
        return Finding("D204", Status.WARN, cause, fix)
    return Finding("D204", Status.OK, cause)


def _count(things: Mapping[PeerId, object]) -> str:
    return "1 peer" if len(things) == 1 else f"{len(things)} peers (median)"


def ports_of(addresses: Sequence[str]) -> Sequence[int]:
    """Return the TCP ports among our own full addresses, as many as a dial-back may ask for."""
    targets = [TcpTarget.of(address.partition("/p2p/")[0]) for address in addresses]
    return sorted({target.port for target in targets if target})[:MAX_PORTS]


async def check_dial_back(streams: Streams, ports: Sequence[int], peers: Sequence[PeerId]) -> Finding:
    """D203: a peer that dials us afresh reaches us. The first of `peers` that answers decides."""
    reasons = []
    for peer_id in peers if ports else ():
        try:
            answer = await ask_dial_back(streams, peer_id, ports)
        except (PeerUnavailableError, RefusedError, RemoteProtocolError) as error:
            reasons.append(f"{peer_id}: {error}")
            continue
        return _judge_dial_back(answer, peer_id, ports)
    return Finding(
        "D203", Status.SKIPPED, f"skipped because nobody dialled us back ({'; '.join(reasons) or 'no port'})"
    )


def _judge_dial_back(answer: DialBackAnswer, peer_id: PeerId, ports: Sequence[int]) -> Finding:
    local = not _is_global(answer.ip)
    if any(answer.reached):
        port = ports[answer.reached.index(True)]
        reach = "; that is the same local network and says nothing of the internet" if local else ""
        return Finding("D203", Status.OK, f"{peer_id} reached us at {answer.ip} port {port}{reach}")
    cause = f"{peer_id} dialled us at {answer.ip} port {' and '.join(map(str, ports))} and did not reach us"
    fix = f"let TCP port {ports[0]} through this machine's firewall"
    if not local:
        family = "ip6" if ":" in answer.ip else "ip4"
        fix += (
            f", forward it to this machine on the router, and start 'iota-p2p peer' with --listen "
            f"/ip4/0.0.0.0/tcp/{ports[0]} --announce /{family}/{answer.ip}/tcp/{ports[0]}"
        )
    return Finding("D203", Status.WARN, cause, fix)


def _is_global(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_global
    except ValueError:  # the peer made it up
        return False


async def ask_for_own_addresses(streams: Streams, own: PeerId, peers: Sequence[PeerId]) -> frozenset[str]:
    """Return the transport addresses that the peers know for our own identity."""
    listed: set[str] = set()
    for peer_id in peers:
        try:
            listed |= await _advertised(streams, own, peer_id)
        except (PeerUnavailableError, RefusedError, RemoteProtocolError):
            continue  # one that knows nothing of us, or is no member; what it should be is D304's question
    return frozenset(listed)


async def check_twin(own: PeerId, listed: Collection[str]) -> Finding:
    """D205: nobody uses our identity at any of these transport addresses.

    Our own node must be down: one behind a forwarded port would take itself for its twin.
    """
    answering: list[str] = []

    async def dial(transport: str) -> None:
        target = TcpTarget.of(transport)
        with trio.move_on_after(_TWIN_DIAL_S):
            try:
                if target and await identify_listener(target.host, target.port) == own:
                    answering.append(transport)
            except (PeerUnavailableError, RemoteProtocolError):
                return

    async with trio.open_nursery() as nursery:
        for transport in listed:
            nursery.start_soon(dial, transport)
    if answering:
        cause = f"another node with our identity {own} answers at {', '.join(sorted(answering))}"
        fix = "stop that node, or give this one its own key: 'iota-p2p peer' with another --home"
        return Finding("D205", Status.FAIL, cause, fix)
    if listed:
        cause = f"peers know {own} at {', '.join(sorted(listed))[:400]}, where it does not answer now"
        return Finding("D205", Status.OK, f"{cause}: most likely a former run")
    return Finding("D205", Status.OK, "the peers know no node with our identity")


async def _advertised(streams: Streams, own: PeerId, peer_id: PeerId) -> set[str]:
    """Return the transport addresses in our own advert, as a peer knows it; verified, but perhaps out of date."""
    swap = Swap(wanted=(peer_id_to_bytes(own),))
    answer = await streams.call(peer_id, VIEW, Request(swap.to_fields(), canonical.encode([])))
    transports = set()
    for data in unpack_entries(bytes(answer.payload)):
        if domain_of(data) != ADVERT:
            continue
        advert = open_signed(data, Advert)
        if advert.signers == (own,) and not advert.payload.leaving:
            transports |= {_transport(address) for address in advert.payload.addresses}
    return transports


def _transport(address: str) -> str:
    try:
        return PeerAddress.parse(address).transport
    except MalformedError:
        return address
