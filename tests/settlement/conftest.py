"""The chain of the settlement tests: our own local one, or any test chain at `--rpc`.

A chain at `--rpc` must fund others from its first unlocked account, and know `evm_snapshot` and its three companions.
"""

import threading
from collections.abc import Iterator

import pytest
from web3 import Web3

from iota_p2p.settlement.dev_chain import DevChainServer
from tests.settlement.scene import ACCOUNTS, ETHER, Scene, connect_to, deploy_scene, rpc


@pytest.fixture(scope="session")
def rpc_url(request: pytest.FixtureRequest) -> Iterator[str]:
    given = request.config.getoption("--rpc")
    if given:
        yield given
        return
    server = DevChainServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.url
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def chain(rpc_url: str, request: pytest.FixtureRequest) -> Web3:
    w3 = connect_to(rpc_url)
    if request.config.getoption("--rpc"):
        rich = rpc(w3, "eth_accounts")[0]
        for account in ACCOUNTS:
            if w3.eth.get_balance(account.address) < 100 * ETHER:
                gift = {"from": rich, "to": account.address, "value": hex(100 * ETHER)}
                w3.eth.wait_for_transaction_receipt(rpc(w3, "eth_sendTransaction", gift))
    return w3


@pytest.fixture(scope="session")
def deployed(chain: Web3) -> Scene:
    """A contract that all tests share; each leaves it as it was."""
    return deploy_scene(chain)


@pytest.fixture
def scene(deployed: Scene) -> Iterator[Scene]:
    snapshot = rpc(deployed.w3, "evm_snapshot")
    yield deployed
    rpc(deployed.w3, "evm_revert", snapshot)
