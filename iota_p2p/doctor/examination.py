"""The examination: all checks in order, each with a time limit, and a reason for every one that is left out."""

import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from iota_p2p.doctor import bootstrap, home, machine, node
from iota_p2p.doctor.finding import CHECKS, Finding, Status
from iota_p2p.home_lock import lock_home
from iota_p2p.membership.announcer import SOFTWARE
from iota_p2p.membership.greeting import Greeted, Greeting
from iota_p2p.network.daemon import open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.host import Host
from iota_p2p.network.multiaddr import PeerAddress
from iota_p2p.network.streams import Streams, open_streams
from iota_p2p_crypto.errors import PeerUnavailableError, UserError
from iota_p2p_crypto.identity import SEED_BYTES, Identity, PeerId
from iota_p2p_protocols.ids import NO_RUN

# Local questions are answered at once, unless a network disk hangs.
_LOCAL_S = 5.0
# Importing torch takes 2 to 9 s on a busy small machine.
_TORCH_S = 60.0
# A connection that is not there in this time is of no use for training.
_DIAL_S = 6.0
# The daemon dials several ways and retries; hello follows.
_HELLO_S = 12.0
# Several peers, each dialling MAX_PORTS ports.
_DIAL_BACK_S = 30.0
_TWIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to examine.

    Attributes:
        home: folder of the key and state.
        key_path: the identity key.
        bootstrap: full multiaddresses to join through, as the user wrote them.
        listen: transport addresses to listen on, as the user wrote them.
        binary: the daemon to run instead of the installed one.
    """

    home: Path
    key_path: Path
    bootstrap: Sequence[str]
    listen: Sequence[str]
    binary: Path | None


@dataclass(slots=True)
class Examination:
    """Runs checks and reports each.

    Attributes:
        begin: told the code and subject of a check that starts.
        report: told each finding as it comes.
        found: all findings so far.
    """

    begin: Callable[[str, str], None]
    report: Callable[[Finding], None]
    found: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> Finding:
        """Note and report a finding."""
        self.found.append(finding)
        self.report(finding)
        return finding

    def failed(self, code: str) -> bool:
        """Return whether any check of a code failed."""
        return any(finding.code == code and finding.status is Status.FAIL for finding in self.found)

    async def check(
        self, code: str, limit_s: float, check: Callable[[], Awaitable[Finding]], subject: str = ""
    ) -> Finding:
        """Run one check within a time limit; one that is too slow has failed."""
        self.begin(code, subject)
        with trio.move_on_after(limit_s):
            return self.add(await check())
        cause = f"no result within {limit_s:.0f} s{f' ({subject})' if subject else ''}"
        return self.add(Finding(code, Status.FAIL, cause, "run this again when machine and network are less busy"))

    def skip(self, codes: Sequence[str], reason: str) -> None:
        """Report those of some checks that have not been made."""
        for code in codes:
            if code not in {finding.code for finding in self.found}:
                self.add(Finding(code, Status.SKIPPED, f"skipped because {reason}"))


async def examine_until_interrupted(options: Options, examination: Examination) -> bool:
    """Make all checks, or as many as Ctrl-C leaves time for; return whether all were made."""
    completed = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_signal)
            await examine(options, examination)
            completed = True
            nursery.cancel_scope.cancel()
    return completed


async def examine(options: Options, examination: Examination) -> None:
    """Make all checks; takes about two minutes at the very worst, a few seconds if all is well."""
    identity = await _examine_machine(options, examination)
    targets = await _examine_addresses(options, examination)
    if examination.failed("D101") or examination.failed("D201"):
        examination.skip(["D202"], "the daemon does not run (D101) or cannot listen (D201)")
    else:
        await _examine_node(options, examination, identity, targets)
    if not options.bootstrap:
        examination.skip(list(CHECKS), "no bootstrap peer was named: add --bootstrap ADDR")
    examination.skip(list(CHECKS), "the checks before it found no peer to ask")


async def _examine_machine(options: Options, examination: Examination) -> Identity | None:
    """Make the checks D101 to D107; return our identity if it is free to be used."""

    async def in_thread(code: str, check: Callable[[], Finding]) -> Finding:
        return await examination.check(code, _LOCAL_S, partial(trio.to_thread.run_sync, check, abandon_on_cancel=True))

    await examination.check("D101", _LOCAL_S, partial(machine.check_daemon, options.binary))
    await in_thread("D102", partial(home.check_home, options.home))
    identity, locked = None, False
    if examination.failed("D102"):
        examination.skip(["D103", "D104"], "the home folder cannot be used (D102)")
    else:
        finding, identity = home.check_identity(options.key_path)
        examination.add(finding)
        locked = (await in_thread("D104", partial(home.check_lock, options.home))).status is not Status.OK
    await in_thread("D105", partial(machine.check_disk, options.home))
    await in_thread("D106", machine.check_memory)
    await examination.check("D107", _TORCH_S, machine.check_torch)
    return None if locked else identity


async def _examine_addresses(options: Options, examination: Examination) -> Sequence[PeerAddress]:
    """Check what needs no node of ours, all bootstrap addresses side by side; return those that lead to a peer."""
    for listen in options.listen:
        examination.add(node.check_listen(listen))
    usable: list[PeerAddress] = []

    async def follow(address: PeerAddress) -> None:
        for code, check in (("D302", bootstrap.check_tcp), ("D303", bootstrap.check_peer)):
            finding = await examination.check(code, _DIAL_S, partial(check, address), str(address))
            if finding.status is Status.FAIL:
                return
        usable.append(address)

    async with trio.open_nursery() as nursery:
        for text in options.bootstrap:
            finding, address = bootstrap.check_form(text)
            examination.add(finding)
            if address:
                nursery.start_soon(follow, address)
    return usable


@dataclass(frozen=True, slots=True)
class _Node:
    host: Host
    streams: Streams
    identity: Identity


@asynccontextmanager
async def _open_node(options: Options, own: Identity | None) -> AsyncIterator[_Node]:
    """Run a node under our identity, holding the home so that no peer starts beside it, or under a throw-away one."""
    identity = own or Identity.from_seed(secrets.token_bytes(SEED_BYTES))
    config = DaemonConfig(listen=tuple(options.listen), binary=options.binary)
    with lock_home(options.home) if own else nullcontext():
        async with open_daemon_host(identity, config) as host, open_streams(host) as streams:
            yield _Node(host, streams, identity)


async def _examine_node(
    options: Options, examination: Examination, own: Identity | None, targets: Sequence[PeerAddress]
) -> None:
    """Make the checks that need a node of ours: D304 and D202 to D205."""
    examination.begin("D202", "")
    try:
        async with _open_node(options, own) as running:
            name = "our identity" if own else "a throw-away identity"
            examination.add(Finding("D202", Status.OK, f"started as {running.identity.peer_id} ({name})"))
            greetings = await _greet_all(examination, running, targets)
            listed = await _ask_peers(examination, running, greetings) if greetings else frozenset()
        if own is None:
            examination.skip(["D205"], "a throw-away identity has no twin")
            return
        listed |= {address.transport for address in targets if address.peer_id == own.peer_id}
        if greetings or listed:
            await examination.check("D205", _TWIN_S, partial(node.check_twin, own.peer_id, listed))
    except* (UserError, PeerUnavailableError) as errors:
        leaf: BaseException = errors
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        fix = "read the daemon's last lines above; if they do not help, reinstall it as D101 says"
        examination.add(Finding("D202", Status.FAIL, str(leaf), fix))


async def _greet_all(examination: Examination, running: _Node, targets: Sequence[PeerAddress]) -> dict[PeerId, Greeted]:
    """Say hello at every usable bootstrap address, side by side; return those that agreed."""
    greeting = Greeting(running.streams, NO_RUN, SOFTWARE, time.time)
    greetings: dict[PeerId, Greeted] = {}

    async def greet(address: PeerAddress) -> Finding:
        finding, greeted = await bootstrap.check_hello(running.host, greeting, address)
        if greeted:
            greetings[address.peer_id] = greeted
        return finding

    async with trio.open_nursery() as nursery:
        for address in targets:
            if address.peer_id == running.identity.peer_id:
                examination.add(Finding("D304", Status.SKIPPED, f"skipped because {address} is our own identity"))
                continue
            nursery.start_soon(examination.check, "D304", _HELLO_S, partial(greet, address), str(address))
    return greetings


async def _ask_peers(examination: Examination, running: _Node, greetings: dict[PeerId, Greeted]) -> frozenset[str]:
    """Ask the peers that talk to us about ourselves; return the addresses they know for our identity."""
    peers = sorted(greetings)
    addresses = await running.host.addresses()
    dial_back = partial(node.check_dial_back, running.streams, node.ports_of(addresses), peers)
    await examination.check("D203", _DIAL_BACK_S, dial_back)
    examination.add(node.judge_clock(greetings))
    with trio.move_on_after(_TWIN_S):
        return await node.ask_for_own_addresses(running.streams, running.identity.peer_id, peers)
    return frozenset()
