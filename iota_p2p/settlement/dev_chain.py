"""A local EVM behind JSON-RPC: py-evm, one block for every transaction, accounts whose keys everybody knows.

A real EVM and no chain: no consensus, no value, and nothing on disk but a log if it is given one. It speaks what a
client needs and the four methods by which test chains move time and turn back (`evm_increaseTime`, `evm_mine`,
`evm_snapshot`, `evm_revert`), under the names other test chains use, so that one test suite runs against any of them.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from eth_account import Account
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import TransactionFailed, ValidationError
from eth_utils.address import to_canonical_address
from eth_utils.exceptions import ValidationError as EvmValidationError
from hexbytes import HexBytes
from web3 import EthereumTesterProvider, Web3
from web3.datastructures import NamedElementOnion
from web3.types import RPCEndpoint

from iota_p2p.settlement import RECURSION_LIMIT
from iota_p2p.settlement.chain_log import ChainLog, Mined
from iota_p2p_crypto.errors import UserError

# py-evm raises the interpreter's limit once more, for EVM calls 1,024 deep, which our contract never makes.
sys.setrecursionlimit(RECURSION_LIMIT)

MAX_REQUEST_BYTES = 1 << 20  # a deployment has 25 kB
REQUEST_TIMEOUT_S = 10.0  # a client that stops in the middle of a request loses its connection, not our thread
BALANCE_WEI = 10**24  # a million ether each: nobody runs dry of what is worth nothing
DEFAULT_ACCOUNTS = 16

_REVERTED = 3  # the code that go-ethereum answers a reverted call with
_INVALID_REQUEST, _SERVER_ERROR = -32600, -32000  # JSON-RPC 2.0


@dataclass(frozen=True, slots=True)
class DevAccount:
    """A funded account; its key is public knowledge."""

    address: str
    key: str


def dev_accounts(count: int = DEFAULT_ACCOUNTS) -> list[DevAccount]:
    """Return the first accounts; the same ones on every dev chain."""
    keys = [hashlib.sha256(f"iota-p2p dev account {index}".encode()).digest() for index in range(count)]
    return [DevAccount(Account.from_key(key).address, "0x" + key.hex()) for key in keys]


class DevChain:
    """The chain itself; one request at a time."""

    def __init__(self, num_accounts: int = DEFAULT_ACCOUNTS, log: ChainLog | None = None) -> None:
        """Begin with so many funded accounts, or go on from a log and keep it."""
        state = {
            to_canonical_address(account.address): {"balance": BALANCE_WEI, "nonce": 0, "code": b"", "storage": {}}
            for account in dev_accounts(num_accounts if log is None else log.num_accounts)
        }
        began_s = int(time.time()) if log is None else log.genesis_s
        genesis = PyEVMBackend.generate_genesis_params({"timestamp": began_s})
        self._tester = EthereumTester(PyEVMBackend(genesis_parameters=genesis, genesis_state=state))
        provider = EthereumTesterProvider(self._tester)
        self._call = provider.request_func(Web3(provider), cast("Any", NamedElementOnion([])))
        self._lock = threading.Lock()
        self._reader = dev_accounts(1)[0].address
        self._ahead_s = 0  # how far the chain's clock was moved
        self._test_methods: dict[str, Callable[[list[Any]], Any]] = {
            "evm_increaseTime": self._increase_time,
            "evm_mine": self._mine,
            "evm_snapshot": lambda _: hex(self._tester.take_snapshot()),
            "evm_revert": self._revert,
        }
        self._log: ChainLog | None = None
        if log is not None:
            self._test_methods["evm_snapshot"] = self._test_methods["evm_revert"] = _refuse_to_turn_back
            self._go_through(log)
            self._log = log

    def respond(self, body: bytes) -> bytes:
        """Return the JSON-RPC response to a JSON-RPC request."""
        try:
            request = json.loads(body)
            method, params, request_id = request["method"], request.get("params", []), request["id"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            fault = {"code": _INVALID_REQUEST, "message": f"expected one JSON-RPC request, got {error}"}
            return json.dumps({"jsonrpc": "2.0", "id": None, "error": fault}).encode()
        answer = {"jsonrpc": "2.0", "id": request_id, **self.answer(method, params)}
        return json.dumps(answer, default=_to_json).encode()

    def answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        """Return a JSON-RPC answer without its id: `result` or `error`."""
        with self._lock:
            try:
                if method in self._test_methods:
                    return {"result": self._test_methods[method](params)}
                self._catch_up()
                if method == "eth_call" and params:
                    # The tester charges readers, too: whoever does not say who it is reads at a rich one's cost.
                    params = [{"from": self._reader, **params[0]}, *params[1:]]
                answer = self._call(RPCEndpoint(method), params)
                if self._log is not None and method == "eth_sendRawTransaction" and "result" in answer:
                    self._log.add(Mined(self._last_s(), bytes(HexBytes(params[0]))))
            except TransactionFailed as error:
                return {"error": {"code": _REVERTED, "message": str(error)}}
            except (ValidationError, EvmValidationError, ValueError, TypeError, KeyError, IndexError) as error:
                return {"error": {"code": _SERVER_ERROR, "message": f"{type(error).__name__}: {error}"}}
        return {key: answer[key] for key in ("result", "error") if key in answer}

    def _go_through(self, log: ChainLog) -> None:
        """Mine everything again, each in a block of its old time.

        Raises:
            UserError: if it does not come out alike.
        """
        for number, one in enumerate(log.mined):
            # The block that is mined next has the present time otherwise, and `time_travel` does not go back to then.
            chain = self._tester.backend.chain
            chain.header = chain.header.copy(timestamp=one.time_s)
            answer = self._call(RPCEndpoint("eth_sendRawTransaction"), [HexBytes(one.raw).to_0x_hex()])
            if "result" not in answer or self._last_s() != one.time_s:
                raise UserError(f"the chain's state does not go on from transaction {number}: name another file")

    def _catch_up(self) -> None:
        """Mine an empty block if the clock has moved on: whoever looks sees the time pass, as on a chain of many."""
        now = int(time.time()) + self._ahead_s
        if now > self._last_s() + 1:
            self._tester.time_travel(now)

    def _increase_time(self, params: list[Any]) -> str:
        # Blocks that came faster than one a second have carried the chain's clock ahead of ours already.
        self._ahead_s = max(self._ahead_s, self._last_s() - int(time.time())) + int(params[0])
        return hex(self._ahead_s)

    def _last_s(self) -> int:
        last: int = self._tester.get_block_by_number("latest")["timestamp"]
        return last

    def _mine(self, _: list[Any]) -> str:
        self._catch_up()
        self._tester.mine_blocks(1)
        return "0x0"

    def _revert(self, params: list[Any]) -> bool:
        self._tester.revert_to_snapshot(int(params[0], 16))
        return True


class DevChainServer(ThreadingHTTPServer):
    """The chain's door on loopback: `serve_forever` in whatever thread, `shutdown` from another."""

    daemon_threads = True

    def __init__(self, port: int = 0, num_accounts: int = DEFAULT_ACCOUNTS, log: ChainLog | None = None) -> None:
        self.chain = DevChain(num_accounts, log)  # first: if it fails, no socket is left open
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIMEOUT_S
    wbufsize = -1  # head and body in one segment: apart, each answer waits 40 ms for an acknowledgement

    def do_POST(self) -> None:
        """Answer one JSON-RPC request."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_REQUEST_BYTES:
            self.close_connection = True
            self.send_error(413)
            return
        body = cast("DevChainServer", self.server).chain.respond(self.rfile.read(int(length)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing: stdout belongs to the command."""


def _refuse_to_turn_back(_: list[Any]) -> str:
    raise ValueError("a chain that keeps its state goes forward only")


def _to_json(value: Any) -> Any:
    """Return what JSON-RPC writes for the types the tester answers with."""
    if isinstance(value, bytes):
        return HexBytes(value).to_0x_hex()
    if hasattr(value, "items"):
        return dict(value)
    raise TypeError(f"expected something JSON-RPC can carry, got {type(value).__name__}")
