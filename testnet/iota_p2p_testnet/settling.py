"""The settler, as the launcher of a testnet sees it: a process that is told of peers and epochs, and tells of money."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import trio

from iota_p2p_testnet.events import PeerEvent, Result, Status
from iota_p2p_testnet.payments import MAX_LINE_BYTES, Payments
from iota_p2p_testnet.testnet_home import TestnetHome

FOLDER_NAME = "chain"
LOG_NAME = "settler.log"
# What is left at the end takes seconds; a machine with three times our load gets three times as long.
FINISH_S = 60.0
_READ_BYTES = 64 * 1024


def why_not(*, wanted: bool, has_validators: bool) -> str:
    """Return why a testnet's epochs cannot be settled; empty if they can."""
    if not wanted:
        return "--no-settle"
    if not has_validators:
        return "the run has no validators, so no results"
    if any(find_spec(name) is None for name in ("web3", "eth_account", "eth_tester")):
        return "it needs the extra settlement: pip install 'iota-p2p[settlement]'"
    return ""


class Settling:
    """Runs the settler (`settler_process`) beside the peers."""

    def __init__(self, home: TestnetHome, run_id: str, num_peers: int, payments: Payments) -> None:
        """`payments` is where its words are kept."""
        self._home = home
        self._arguments = (run_id, str(num_peers))
        self._payments = payments
        # As many words as there are peers and epochs: the settler reads them between two transactions.
        self._words, self._to_say = trio.open_memory_channel[dict[str, object]](math.inf)
        self._joined: set[int] = set()
        self._ended = trio.Event()

    @property
    def folder(self) -> Path:
        """Where the chain's state, the sponsor's journal and the log are."""
        return self._home.folder / FOLDER_NAME

    def hear(self, number: int, event: PeerEvent) -> None:
        """Pass on what concerns money: the first status of a peer, whose ledger exists by then, and results."""
        if isinstance(event, Status) and number not in self._joined:
            self._joined.add(number)
            self._words.send_nowait({"join": str(self._home.peer(number))})
        if isinstance(event, Result):
            self._words.send_nowait({"epoch": event.epoch})

    async def run(self, say: Callable[[str], None]) -> None:
        """Run the process until it has finished or we are cancelled; `say` hears what is worth telling."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [sys.executable, "-m", "iota_p2p_testnet.settler_process", str(self.folder), *self._arguments]
        with (self.folder / LOG_NAME).open("ab") as log:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us
            )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._speak, process)
                await self._listen(process, say)
                code = await process.wait()
                nursery.cancel_scope.cancel()
            if code:
                say(f"the settler ended with exit code {code}; see {self.folder / LOG_NAME}")
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            self._ended.set()

    async def finish(self) -> None:
        """Have it settle, claim and audit what is left, for a while."""
        self._words.send_nowait({"finish": True})
        with trio.move_on_after(FINISH_S):
            await self._ended.wait()

    async def _speak(self, process: trio.Process) -> None:
        assert process.stdin is not None  # noqa: S101 - for the type checker
        async for word in self._to_say:
            try:
                await process.stdin.send_all(json.dumps(word).encode() + b"\n")
            except trio.BrokenResourceError:
                return  # it has ended; `run` says so

    async def _listen(self, process: trio.Process, say: Callable[[str], None]) -> None:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        partial = b""
        while data := await process.stdout.receive_some(_READ_BYTES):
            *lines, partial = (partial + data).split(b"\n")
            partial = partial[:MAX_LINE_BYTES]
            for line in lines:
                if note := self._payments.hear(line):
                    say(note)
