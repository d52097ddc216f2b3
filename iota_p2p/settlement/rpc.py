"""An EVM network's RPC: reaching it, and telling its silence, its refusals and the contract's reasons apart."""

import json

import requests
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractLogicError
from web3.types import RPCEndpoint

from iota_p2p.settlement.errors import ContractRefusalError, RpcUnavailableError

# No answer, or one that is no JSON: a proxy's error page, a connection cut in the middle.
OUTAGES = (requests.RequestException, json.JSONDecodeError)

_REQUEST_TIMEOUT_S = 10.0  # one HTTP request; a public RPC answers within one
_ERROR_SELECTOR = "0x08c379a0"  # of Error(string), which `assert` with a reason returns
# How nodes say that an account cannot pay: go-ethereum and most others, py-evm, Hardhat.
_TOO_POOR = ("insufficient funds", "insufficient balance", "cannot afford", "enough funds")


def connect(rpc_url: str) -> Web3:
    """Return a connection to an EVM network's RPC; nothing is sent yet."""
    provider = HTTPProvider(
        rpc_url,
        request_kwargs={"timeout": _REQUEST_TIMEOUT_S},
        exception_retry_configuration=None,  # our own loop asks again: it knows which failures are worth it
        # Asked before every call otherwise, and the one answer that no reorganisation changes.
        cache_allowed_requests=True,
        cacheable_requests={RPCEndpoint("eth_chainId")},
    )
    return Web3(provider)


def chain_id_of(w3: Web3) -> int:
    """Return the network's id, or raise RpcUnavailableError."""
    try:
        return w3.eth.chain_id
    except OUTAGES as error:
        raise RpcUnavailableError(f"the RPC does not answer: {error}") from error


def genesis_of(w3: Web3) -> bytes:
    """Return the hash of the chain's first block, by which journals tell chains apart."""
    try:
        return bytes(w3.eth.get_block(0)["hash"])
    except OUTAGES as error:
        raise RpcUnavailableError(f"the RPC does not answer: {error}") from error


def refusal_of(error: ContractLogicError) -> ContractRefusalError:
    """Return a contract's refusal with its rule; the text is bounded, for an RPC may say anything."""
    reason = _reason_in(error.data) or (error.message or "").removeprefix("execution reverted: ")
    rule = reason.strip()[:64] or "no-reason"
    return ContractRefusalError(rule, f"the contract refuses: {rule}")


def is_too_poor(error: Exception) -> bool:
    """Whether a node says that an account cannot pay."""
    return any(words in str(error) for words in _TOO_POOR)


def _reason_in(data: object) -> str:
    """Return the text of what a reverted call returned, `Error(string)` in the ABI's encoding; empty if it is none.

    Nodes put it into words of their own; the bytes are the same everywhere, in `data` or in `data.data`.
    """
    if isinstance(data, dict):
        data = data.get("data")
    if not isinstance(data, str) or not data.startswith(_ERROR_SELECTOR):
        return ""
    try:
        returned = bytes.fromhex(data.removeprefix(_ERROR_SELECTOR))
    except ValueError:
        return ""
    length = int.from_bytes(returned[32:64], "big")
    return returned[64 : 64 + min(length, len(returned))].decode("utf-8", "replace")
