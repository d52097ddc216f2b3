"""The chain of the settlement tests: our own local one, or any test chain at `--rpc`.

A chain at `--rpc` must fund others from its first unlocked account, and know `evm_snapshot` and its three companions.
"""

import threading
from collections.abc import Iterator

import pytest
from web3 import Web3

from iota_p2p.settlement.dev_chain import DevChainServer
from tests.settlement.scene import ACCOUNTS, ETHER, DirectProvider, Scene, connect_to, deploy_scene, rpc


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[DevChainServer | None]:
    """Our own chain, unless another was given."""
    if request.config.getoption("--rpc"):
        yield None
        return
    server = DevChainServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def rpc_url(server: DevChainServer | None, request: pytest.FixtureRequest) -> str:
    return server.url if server is not None else str(request.config.getoption("--rpc"))


@pytest.fixture(scope="session")
def chain(server: DevChainServer | None, rpc_url: str) -> Web3:
    """A way to the chain for tests of the contract; those of the client go by `rpc_url`."""
    if server is not None:
        return Web3(DirectProvider(server.chain))
    w3 = connect_to(rpc_url)
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
