"""Network namespaces of our own, made without root: a public network, a router that translates addresses, a home.

    public 20.0.0.1 ---- 20.0.0.2 router 192.168.7.1 ---- 192.168.7.2 home

Everything lives in one user namespace that ends with its first process, and none of it touches the machine's network:
the public addresses are of a range in use because libp2p takes those set aside for documentation for private ones.
"""

import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

PUBLIC_IP, HOME_IP = "20.0.0.1", "192.168.7.2"
TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables"}  # and their packages
_HOLD = "echo ready; exec sleep 1000"

_RULES = """
table ip home {
  chain out { type nat hook postrouting priority 100; oifname "outside" masquerade; }
  chain in { type filter hook forward priority 0; iifname "outside" ct state new drop; }
}
"""


def missing() -> str:
    """Say what this machine lacks for namespaces with address translation; empty if nothing."""
    lacking = [f"{tool} (package {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if lacking:
        return "missing: " + ", ".join(lacking)
    probe = ["unshare", "-rn", "sh", "-c", "ip link add t0 type veth peer name t1 && nft add table ip probe"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"namespaces refused here: {tried.stderr.strip()[:200]}"


@dataclass(frozen=True)
class Namespace:
    """A network namespace, held by a process.

    Attributes:
        pid: the process.
    """

    pid: int

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command to run it inside."""
        return ("nsenter", "-t", str(self.pid), "-U", "-n", "--preserve-credentials", "--")

    async def run(self, script: str, stdin: bytes = b"") -> None:
        """Run a shell script inside; raises CalledProcessError if it fails."""
        await trio.run_process([*self.prefix, "sh", "-ec", script], stdin=stdin, capture_stderr=True)


@dataclass(frozen=True)
class Topology:
    """The three namespaces."""

    public: Namespace
    router: Namespace
    home: Namespace


async def _hold(nursery: trio.Nursery, *command: str) -> Namespace:
    process = await trio.lowlevel.open_process([*command, "sh", "-c", _HOLD], stdout=subprocess.PIPE)
    nursery.start_soon(_end_with, process)
    assert process.stdout is not None
    assert await process.stdout.receive_some() == b"ready\n"
    return Namespace(process.pid)


async def _end_with(process: trio.Process) -> None:
    """Kill a process when we are cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def open_topology() -> AsyncGenerator[Topology, None]:
    """Build the three namespaces; they end with the context."""
    async with trio.open_nursery() as nursery:
        router = await _hold(nursery, "unshare", "-rn")
        inside = ("nsenter", "-t", str(router.pid), "-U", "--preserve-credentials", "--", "unshare", "-n")
        public, home = await _hold(nursery, *inside), await _hold(nursery, *inside)
        await router.run(
            f"ip link add outside type veth peer name wan netns {public.pid};"
            f"ip link add inside type veth peer name lan netns {home.pid};"
            "ip addr add 20.0.0.2/24 dev outside; ip addr add 192.168.7.1/24 dev inside;"
            "ip link set lo up; ip link set outside up; ip link set inside up;"
            "echo 1 > /proc/sys/net/ipv4/ip_forward || sysctl -qw net.ipv4.ip_forward=1; nft -f -",
            _RULES.encode(),
        )
        await public.run(f"ip addr add {PUBLIC_IP}/24 dev wan; ip link set lo up; ip link set wan up")
        await home.run(
            f"ip addr add {HOME_IP}/24 dev lan; ip link set lo up; ip link set lan up;"
            "ip route add default via 192.168.7.1"
        )
        yield Topology(public, router, home)
        nursery.cancel_scope.cancel()
