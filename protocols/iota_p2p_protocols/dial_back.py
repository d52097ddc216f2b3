"""Dial-back: can you reach me, on `/iota-p2p/dial-back/1`.

A peer cannot see from inside whether others can dial it, so it asks one it is connected to. A service that dials
on request is a gift to port scanners and floods, therefore:

- the request holds ports and nothing else: the IP address is the one the caller is connected from, as the callee
  sees it, never one of the caller's choice; a caller behind a relay has none and is refused;
- a dial counts as reached only if the caller's own peer id answers there;
- the callee sends nothing before the other end has greeted as libp2p (see `network.dial_probe`), and does not tell
  a closed port from one where something else answers: behind a proxy all callers seem to come from its own network;
- `Allowance` bounds requests per peer, per IP address and in total; one dial at a time, with a short timeout.

The answer is a help and no proof: the callee may lie, and a NAT that knows its address may let it in where it
would keep a stranger out.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.message import Message

MAX_PORTS = 3  # a node listens on one TCP port, rarely on two
MAX_IP_CHARS = 45  # the longest text of an IPv6 address

Port = Annotated[int, Field(ge=1, le=65535)]


class DialBackRequest(Message):
    """Dial me.

    Attributes:
        ports: TCP ports on which the caller believes to be listening.
    """

    ports: Annotated[tuple[Port, ...], Field(min_length=1, max_length=MAX_PORTS)]


class DialBackAnswer(Message):
    """What came of it.

    Attributes:
        ip: the caller's IP address as the callee sees it.
        reached: for each port asked for, in order, whether the caller answered there.
    """

    ip: Annotated[str, Field(min_length=1, max_length=MAX_IP_CHARS)]
    reached: Annotated[tuple[bool, ...], Field(min_length=1, max_length=MAX_PORTS)]


def direct_ip(addresses: Iterable[str]) -> str | None:
    """Return the IP address of the first connection that has no relay in between, or None.

    Attributes of a connection's address: `/ip4/192.0.2.1/tcp/4001`; a relayed one contains `/p2p-circuit`, and the
    IP address in it is the relay's, which nobody asked to dial.
    """
    for address in addresses:
        parts = address.split("/")
        if "p2p-circuit" in parts or parts[1:2] not in (["ip4"], ["ip6"]):
            continue
        return str(ipaddress.ip_address(parts[2]))
    return None


@dataclass(slots=True)
class Allowance:
    """How many dial-backs a callee grants in a minute.

    Peer ids cost nothing, so IP addresses are counted too; those can be had by the thousand, so is the total. The
    total also bounds the memory of the counts: at most two keys for each request granted.
    """

    per_peer: int = 3
    """A person who runs `doctor` again after each fix does so every half minute."""

    per_ip: int = 12
    """A few peers behind one router, or a local network of a dozen processes."""

    total: int = 60
    """With MAX_PORTS dials each, three small connections a second at the very most."""

    window_s: float = 60.0
    _window_start_s: float = float("-inf")
    _granted: Counter[str] = field(default_factory=Counter)
    _num_granted: int = 0

    def take(self, peer_id: str, ip: str, now_s: float) -> None:
        """Count one request; raises RefusedError if it is one too many. `now_s` is a clock that never goes back."""
        if now_s - self._window_start_s >= self.window_s:
            self._window_start_s = now_s
            self._granted.clear()
            self._num_granted = 0
        if (
            self._num_granted >= self.total
            or self._granted[peer_id] >= self.per_peer
            or self._granted[ip] >= self.per_ip
        ):
            wait_s = self._window_start_s + self.window_s - now_s
            raise RefusedError("dial-back-rate", f"expected fewer requests: ask again in {wait_s:.0f} s")
        self._granted.update((peer_id, ip))
        self._num_granted += 1
