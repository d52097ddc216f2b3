"""The daemon's life: one run of its process after the other, the same identity and ports in each."""

import errno
import logging
import socket
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from iota_p2p.network.control_client import ControlClient
from iota_p2p.network.daemon_config import HOLD_TIMEOUT_S, DaemonConfig
from iota_p2p.network.daemon_process import DaemonProcess
from iota_p2p_crypto.errors import LocalProtocolError, PeerUnavailableError, UserError
from iota_p2p_crypto.identity import Identity

# A daemon that ends so often in so many seconds does not do so by accident.
MAX_DEATHS = 5
DEATHS_WINDOW_S = 60.0
# Waiting before a restart doubles with each recent death: at once for a lone accident, 1.6 s before we give up.
_FIRST_BACKOFF_S = 0.1
# A start takes 0.15 s on a quiet machine; the daemon would give up by itself then.
_START_S = float(HOLD_TIMEOUT_S)
_START_POLL_S = 0.005
# A daemon answers a ping in a millisecond, on a badly overloaded machine in a second. One that is stopped or stuck
# is noticed within MAX_MISSED_BEATS * (HEARTBEAT_S + BEAT_TIMEOUT_S) = 16 s. One miss may be ours: when the whole
# machine has slept, our time is up before we have read the answer.
HEARTBEAT_S = 3.0
BEAT_TIMEOUT_S = 5.0
MAX_MISSED_BEATS = 2

_log = logging.getLogger(__name__)


class DaemonRuns:
    """Starts the daemon in a private folder, and again whenever it dies."""

    def __init__(self, identity: Identity, config: DaemonConfig, binary: Path, folder: Path) -> None:
        self.identity = identity
        self.config = config
        self.client = ControlClient(folder / "control")
        self.changing = trio.Lock()
        """Held from one run's death until the next one has what the last one had."""
        self.num_runs = 0
        """How many have been started."""
        self._binary = binary
        self._folder = folder
        self._listen = tuple(config.listen)
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS)
        self._process: DaemonProcess | None = None
        self._held: trio.SocketStream | None = None

    @property
    def pid(self) -> int | None:
        """The daemon's process id, None between two runs."""
        return self._process.pid if self._process else None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """Start the first run; when the context ends, stop the last one, even if cancelled."""
        try:
            await self._start()
            yield
        finally:
            await self._stop()

    async def supervise(self, restore: Callable[[], Awaitable[None]]) -> None:
        """Wait for each death, start the next run and `restore` it; raises UserError after too many deaths."""
        while True:
            assert self._process is not None  # noqa: S101 - for the type checker
            await self._process.wait_dead()
            async with self.changing:
                await self._bury(self._process.last_words())
                while True:
                    try:
                        await self._start()
                        await restore()
                        break
                    except (UserError, PeerUnavailableError) as error:
                        await self._bury(str(error))

    async def kill_when_hung(self) -> None:
        """Ping the daemon again and again, and kill one that is up but silent; `supervise` sees to the rest."""
        num_missed = 0
        while True:
            await trio.sleep(HEARTBEAT_S)
            process = self._process
            num_missed = num_missed + 1 if process is not None and await self._misses_beat() else 0
            if process is not None and process is self._process and num_missed == MAX_MISSED_BEATS:
                _log.warning("daemon hung", extra={"reason": f"no answer to {MAX_MISSED_BEATS} pings"})
                process.kill()
                num_missed = 0

    async def _misses_beat(self) -> bool:
        try:
            with trio.fail_after(BEAT_TIMEOUT_S):
                await self.client.ping()
        except trio.TooSlowError:
            return True
        except PeerUnavailableError:
            pass  # it has died, or is starting: others notice that
        return False

    async def _bury(self, reason: str) -> None:
        """Clear away a run that ended, and wait before the next one."""
        _log.warning("daemon died", extra={"reason": reason})
        await self._stop()
        now_s = trio.current_time()
        self._deaths.append(now_s)
        if len(self._deaths) == MAX_DEATHS and now_s - self._deaths[0] < DEATHS_WINDOW_S:
            raise UserError(f"The libp2p daemon died {MAX_DEATHS} times in {DEATHS_WINDOW_S:.0f} s: {reason}")
        num_recent = sum(now_s - death_s < DEATHS_WINDOW_S for death_s in self._deaths)
        await trio.sleep(_FIRST_BACKOFF_S * 2.0 ** (num_recent - 1) if num_recent > 1 else 0)

    async def _start(self) -> None:
        """Start a run and wait until it answers; on any failure or cancellation the caller must `_stop`."""
        for address in self._listen:
            check_port(address)
        control_path, key_path = self._folder / "control", self._folder / "key"
        control_path.unlink(missing_ok=True)
        try:
            key_path.touch(mode=0o600, exist_ok=False)
            key_path.write_bytes(self.identity.libp2p_private_key())
            self.num_runs += 1
            self._process = DaemonProcess(self._binary, self.config.flags(self._listen, control_path, key_path))
            with trio.move_on_after(_START_S):
                self._held = await self._hold(self._process)
            if self._held is None:
                raise UserError(f"The libp2p daemon did not answer within {_START_S} s of its start.")
            own = await self.client.identify()
        finally:
            key_path.unlink(missing_ok=True)
        if own.peer_id != self.identity.peer_id:
            raise LocalProtocolError(f"expected the daemon to be {self.identity.peer_id}, got {own.peer_id}")
        self._listen = tuple(fix_port(address, own.addresses) for address in self._listen)

    async def _hold(self, process: DaemonProcess) -> trio.SocketStream:
        while True:
            try:
                return await self.client.hold()
            except PeerUnavailableError:
                if process.dead:
                    await process.wait_dead()  # reads its last words
                    raise UserError(f"The libp2p daemon did not start: {process.last_words()}") from None
            await trio.sleep(_START_POLL_S)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        held, self._held = self._held, None
        if process:
            await process.stop()
        if held:
            await trio.aclose_forcefully(held)


def fix_port(listen: str, actual: Sequence[str]) -> str:
    """Return a listen address with its port 0 replaced by the one the daemon got, if `actual` tells it."""
    host, separator, rest = listen.partition("/tcp/0")
    if not separator or rest.startswith(tuple("0123456789")):
        return listen
    family, address = host.split("/")[1:3]
    wanted = f"/{family}/" if address in {"0.0.0.0", "::"} else f"{host}/"  # noqa: S104 - compared, not bound
    for candidate in actual:
        transport, _, port_and_rest = candidate.partition("/tcp/")
        port, _, candidate_rest = port_and_rest.partition("/")
        if f"{transport}/".startswith(wanted) and candidate_rest == rest.lstrip("/"):
            return f"{host}/tcp/{port}{rest}"
    return listen


def check_port(listen: str) -> None:
    """Raise UserError if an address to listen on is taken or not ours.

    The daemon binds with SO_REUSEPORT: it would share the port with another daemon of the same user without a
    word, and each would get half of the other's connections.
    """
    parts = listen.split("/")
    if parts[1] not in {"ip4", "ip6"} or parts[3:4] != ["tcp"]:
        return
    family = socket.AF_INET if parts[1] == "ip4" else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former run may linger
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((parts[2], int(parts[4])))
        except OSError as error:
            fix = "choose another port" if error.errno == errno.EADDRINUSE else "choose another address"
            raise UserError(f"Cannot listen on {listen} ({error.strerror}): {fix}.") from error
