"""Checks of one bootstrap address, each a step further: its form, TCP, who is there, and whether it talks to us."""

from dataclasses import dataclass

import trio

from iota_p2p.doctor.finding import Finding, Status
from iota_p2p.membership.greeting import Greeted, Greeting
from iota_p2p.network.dial_probe import identify_listener
from iota_p2p.network.host import Host
from iota_p2p.network.multiaddr import PeerAddress
from iota_p2p_protocols.errors import (
    MalformedError,
    PeerUnavailableError,
    RefusedError,
    RemoteProtocolError,
    UnsupportedVersionError,
)

# /dnsaddr needs a look-up of its own; only the daemon does it.
_DIALLABLE = ("ip4", "ip6", "dns", "dns4", "dns6")
_UPDATE = "run 'pip install --upgrade iota-p2p', and ask the bootstrap peer's operator to do the same"


@dataclass(frozen=True, slots=True)
class TcpTarget:
    """Where an address can be dialled by plain TCP.

    Attributes:
        host: IP address or DNS name.
        port: TCP port.
    """

    host: str
    port: int

    @classmethod
    def of(cls, transport: str) -> "TcpTarget | None":
        """Return the target of a transport address, None if it is not a direct TCP one."""
        parts = transport.split("/")[1:]
        if len(parts) != 4 or parts[0] not in _DIALLABLE or parts[2] != "tcp":  # noqa: PLR2004 - /ip4/HOST/tcp/PORT
            return None
        return cls(parts[1], int(parts[3]))


def check_form(address: str) -> tuple[Finding, PeerAddress | None]:
    """D301: the address is a full multiaddress; returns it parsed."""
    try:
        parsed = PeerAddress.parse(address)
    except MalformedError as error:
        fix = (
            "copy the whole address that the other peer printed at its start: /ip4/<address>/tcp/<port>/p2p/12D3KooW..."
        )
        return Finding("D301", Status.FAIL, str(error), fix), None
    return Finding("D301", Status.OK, address), parsed


async def check_tcp(address: PeerAddress) -> Finding:
    """D302: something accepts TCP connections there."""
    target = TcpTarget.of(address.transport)
    if target is None:
        return Finding("D302", Status.SKIPPED, f"skipped because {address.transport} is not a direct TCP address")
    try:
        stream = await trio.open_tcp_stream(target.host, target.port)
    except (OSError, UnicodeError) as error:
        cause = f"{target.host} port {target.port} accepts no TCP connection: {_innermost(error)}"
        fix = (
            f"check that the peer runs and its firewall lets in TCP {target.port} "
            f"(on its machine: 'ss -ltn sport = :{target.port}'), or use another bootstrap address"
        )
        return Finding("D302", Status.FAIL, cause, fix)
    await stream.aclose()
    return Finding("D302", Status.OK, f"{target.host} port {target.port}")


def _innermost(error: OSError | UnicodeError) -> str:
    """Return what the system said; trio wraps it once for each address of a name."""
    cause: BaseException = error
    while isinstance(cause.__cause__, BaseException):
        cause = cause.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)


async def check_peer(address: PeerAddress) -> Finding:
    """D303: libp2p answers there, and proves the expected peer id."""
    target = TcpTarget.of(address.transport)
    if target is None:
        return Finding("D303", Status.SKIPPED, f"skipped because {address.transport} is not a direct TCP address")
    where = f"{target.host} port {target.port}"
    try:
        found = await identify_listener(target.host, target.port)
    except PeerUnavailableError as error:
        return Finding("D303", Status.FAIL, str(error), "run this again: the connection was lost between two checks")
    except RemoteProtocolError as error:
        cause = f"what listens at {where} is no libp2p peer: {error}"
        return Finding("D303", Status.FAIL, cause, "correct the port, or ask the peer's operator for its address")
    if found != address.peer_id:
        cause = f"{where} is {found}, not {address.peer_id}"
        fix = f"if you trust that peer, use {PeerAddress(found, address.transport)}; else ask the operator"
        return Finding("D303", Status.FAIL, cause, fix)
    return Finding("D303", Status.OK, f"{found} at {where}")


async def check_hello(host: Host, greeting: Greeting, address: PeerAddress) -> tuple[Finding, Greeted | None]:
    """D304: our daemon connects, and hello is agreed; returns what the peer said."""
    try:
        await host.connect(str(address))
        greeted = await greeting.greet(address.peer_id)
    except PeerUnavailableError as error:
        fix = "ask the peer's operator whether 'iota-p2p peer' runs there, or use another bootstrap address"
        return Finding("D304", Status.FAIL, f"{address.peer_id} does not answer: {error}", fix), None
    except RefusedError as error:
        return Finding("D304", Status.FAIL, f"{address.peer_id} refuses us: {error} [{error.reason}]", _UPDATE), None
    except UnsupportedVersionError as error:
        return Finding("D304", Status.FAIL, f"no version in common with {address.peer_id}: {error}", _UPDATE), None
    except RemoteProtocolError as error:
        cause = f"{address.peer_id} answers nonsense: {error} [{error.rule}]"
        return Finding("D304", Status.FAIL, cause, "use another bootstrap address, and tell that peer's operator"), None
    cause = f"{address.peer_id} runs {greeted.hello.software}, answers in {greeted.round_trip_s * 1000:.0f} ms"
    return Finding("D304", Status.OK, cause), greeted
