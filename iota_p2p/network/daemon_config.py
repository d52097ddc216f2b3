"""What a user may choose about the libp2p daemon, and the command line it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from iota_p2p.network.multiaddr import PeerAddress, encode_multiaddr
from iota_p2p_crypto.errors import MalformedError, UserError

# The daemon ends itself when nobody has held a persistent connection for this long; long enough for the slowest
# start on a busy machine, short enough that a daemon whose owner vanished during the start does not stay.
HOLD_TIMEOUT_S = 20


class Reachability(Enum):
    """Whether others can dial us: found out by AutoNAT, or known beforehand."""

    AUTO = "auto"
    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonConfig:
    """How the daemon listens, whom it dials first, and how it deals with NATs.

    Raises:
        UserError: if an address is not a multiaddress, or two choices exclude each other.
    """

    listen: Sequence[str] = ("/ip4/0.0.0.0/tcp/0",)
    """Transport multiaddresses to listen on. Port 0: the system chooses once, and a restarted daemon keeps it."""

    bootstrap: Sequence[str] = ()
    """Full multiaddresses of peers to join through. Dialled until one answers; never the public IPFS nodes."""

    announce: Sequence[str] = ()
    """Transport multiaddresses to tell others instead of what we listen on, such as a forwarded port."""

    relay: bool = True
    """Whether circuit relays may be used to reach peers behind NATs, and to be reached through one."""

    relay_service: bool = False
    """Whether to relay for others. Costs bandwidth, so only on request."""

    auto_relay: bool = False
    """Whether to reserve a place at a relay when we turn out to be unreachable."""

    trusted_relays: Sequence[str] = ()
    """Full multiaddresses of the relays to use; without any, the bootstrap peers."""

    auto_nat: bool = False
    """Whether to tell other peers if they are reachable, by dialling them back."""

    nat_port_map: bool = False
    """Whether to ask the router for a port by UPnP. Off: a testnet must not reconfigure its router."""

    reachability: Reachability = Reachability.AUTO
    """Known reachability, for machines where AutoNAT cannot tell or takes too long."""

    binary: Path | None = None
    """The daemon's executable; by default the one inside the installed hivemind package."""

    def __post_init__(self) -> None:
        try:
            for transport in (*self.listen, *self.announce):
                encode_multiaddr(transport)
            for address in (*self.bootstrap, *self.trusted_relays):
                PeerAddress.parse(address)
        except MalformedError as error:
            raise UserError(f"An address in the network configuration is wrong: {error}.") from error
        if not self.listen:
            raise UserError("The network configuration needs at least one listen address, such as /ip4/0.0.0.0/tcp/0.")
        if self.announce and any(address.endswith("/tcp/0") for address in self.listen):
            raise UserError("Announced addresses need a fixed listen port: write it in place of /tcp/0.")
        if self.auto_relay and not (self.trusted_relays or self.bootstrap):
            raise UserError("auto_relay needs trusted_relays or bootstrap peers to relay through.")

    def flags(self, listen: Sequence[str], control_path: Path, key_path: Path) -> list[str]:
        """Return the daemon's arguments.

        Left out on purpose: `-b`, which makes the daemon exit when its bootstrap peers are away, or dial the
        public IPFS nodes when none are named: we dial them ourselves. QUIC is off because it loses the last
        bytes of streams, Noise because TLS 1.3 takes less processor time (docs/network.md). `-dhtServer` because
        plain `-dht` stays a client until AutoNAT has found two others.
        """
        flags = {
            "listen": f"/unix{control_path}",
            "id": str(key_path),
            "hostAddrs": ",".join(listen),
            "idleTimeout": f"{HOLD_TIMEOUT_S}s",
            "dhtServer": "1",
            "pubsub": "1",
            "quic": "0",
            "noise": "0",
            "relay": str(int(self.relay)),
            "relayService": str(int(self.relay_service)),
            "natPortMap": str(int(self.nat_port_map)),
            "autonat": str(int(self.auto_nat)),
        }
        if self.announce:
            flags["announceAddrs"] = ",".join(self.announce)
        if self.auto_relay:
            flags |= {
                "autoRelay": "1",
                "relayDiscovery": "0",
                "trustedRelays": ",".join(self.trusted_relays or self.bootstrap),
            }
        if self.reachability is not Reachability.AUTO:
            flags[f"forceReachability{self.reachability.name.capitalize()}"] = "1"
        return [f"-{name}={value}" for name, value in flags.items()]
