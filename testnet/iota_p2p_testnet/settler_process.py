"""The settler's own process: it runs the local chain, hears of peers and results, and says how the settlement stands.

    python -m iota_p2p_testnet.settler_process FOLDER RUN_ID NUM_PEERS

Its standard input brings a JSON object per line: `{"join": HOME}` for a peer whose ledger exists, `{"epoch": E}` for a
certified epoch, `{"finish": true}` to settle and claim what is left and leave. When the input ends, its parent is
gone, and it ends at once; so does the chain, in the same way. Whatever it was doing goes on at the next start: the
chain's state and all journals are in FOLDER and the peers' homes.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from eth_account import Account

from iota_p2p.ledger.ledger import LedgerError
from iota_p2p.settlement.dev_chain import dev_accounts
from iota_p2p.settlement.errors import ChainError
from iota_p2p.settlement.journal import FILE_NAME as JOURNAL_NAME
from iota_p2p.settlement.rpc import connect
from iota_p2p_crypto.errors import RemoteProtocolError, UserError
from iota_p2p_testnet.payments import Standing
from iota_p2p_testnet.settler import Settler, deploy_contract, open_submitter

STATE_NAME = "chain.log"
# Training comes first: on a machine that it fills, settling waits for a gap.
NICENESS = 10
WORK_EVERY_S = 1.0
# For what is left at the end: an epoch or two with their claims take seconds.
FINISH_S = 20.0
_READ_BYTES = 64 * 1024
# What a later attempt may get over; everything else is a bug, and ends the process with its reason.
_TRANSIENT = (ChainError, LedgerError, RemoteProtocolError, UserError)


def main() -> None:
    """Settle until told to finish, or until our parent is gone."""
    folder, run_id, num_peers = Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
    os.nice(NICENESS)
    words: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_listen, args=(words,), daemon=True).start()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _running_chain(folder / STATE_NAME) as url, ExitStack() as files:
        w3 = connect(url)
        sponsor = open_submitter(w3, Account.from_key(dev_accounts(1)[0].key), folder / JOURNAL_NAME, files)
        contract = deploy_contract(w3, sponsor, run_id)
        standing = Standing(contract=contract.address, state=str(folder / STATE_NAME))
        settler = Settler(contract, w3, sponsor, run_id, num_peers, _tell, files, standing)
        _tell(standing.model_copy(update={"note": f"epochs are settled by contract {contract.address}"}))
        _settle_until_told(settler, words)
        _finish(settler)


def _settle_until_told(settler: Settler, words: "SimpleQueue[dict[str, Any]]") -> None:
    began_s = time.monotonic()
    while True:
        try:
            word = words.get(timeout=WORK_EVERY_S)
        except Empty:
            _try_to_work(settler, time.monotonic() - began_s)
            continue
        if "finish" in word:
            return
        if "join" in word:
            settler.join(Path(word["join"]), int(time.time()))
        if "epoch" in word:
            settler.certified(int(word["epoch"]))


def _finish(settler: Settler) -> None:
    """Settle and claim what can be, for a while, and audit."""
    deadline_s = time.monotonic() + FINISH_S
    while (settler.pending or settler.due) and time.monotonic() < deadline_s:
        before = len(settler.pending)
        _try_to_work(settler, float("inf"))
        if settler.pending and len(settler.pending) == before and not settler.due:
            break  # no quorum has these results, and none will
        if settler.due:
            settler.pass_time()
    settler.audit()


def _try_to_work(settler: Settler, elapsed_s: float) -> None:
    try:
        settler.work(elapsed_s, int(time.time()))
    except _TRANSIENT as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - our log


@contextmanager
def _running_chain(state: Path) -> Iterator[str]:
    """Run the local chain in a process of its own; it ends with ours."""
    program = "from iota_p2p.cli.main import main; main()"
    command = [sys.executable, "-c", program, "chain", "dev", "--json", "--attached", "--state", str(state)]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        line = process.stdout.readline()
        if not line:
            raise ChainError("the local chain did not start; its reason is in the line above")
        yield json.loads(line)["rpc_url"]


def _listen(words: "SimpleQueue[dict[str, Any]]") -> None:
    partial = b""
    while data := os.read(sys.stdin.fileno(), _READ_BYTES):  # `sys.stdin` would be locked when the interpreter ends
        *lines, partial = (partial + data).split(b"\n")
        for line in lines:
            words.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)  # journals are made for a death at any instruction


def _tell(standing: Standing) -> None:
    print(standing.model_dump_json(), flush=True)  # noqa: T201 - the launcher reads it


if __name__ == "__main__":
    main()
